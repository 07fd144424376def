"""What a worker has promised: each duty as recorded, and when it is due for another message.

Knows duties as data. Must never decide anything: that is worker.py.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from daemon.core.states import DUTY_STEPS, DutyState, moved
from daemon.core.step import ExecutionKey, Now, Step
from daemon.core.timers import Timers
from nexapod.encoding import decode, encode

DUTY_PREFIX = b"duty/"
DAY_MS = 86_400_000
RENEW_MS_MIN = 100  # an owner that asks for renewals more often than this does not get them
_RECORD_BYTES_MAX = 4096
_UNFINISHED = (DutyState.ASSIGNED, DutyState.RUNNING)


class Duty(msgspec.Struct, array_like=True):
    """One execution this node owes. `days`: how long it has been kept, counted while the node ran."""

    offer: bytes
    task: int
    round: int
    owner: bytes
    assignment: bytes
    lease_ms: int
    state: DutyState = DutyState.ASSIGNED
    commit: bytes | None = None
    root: bytes = b""
    exit_code: int = 0
    numeric_class: str = ""
    work: int = 0
    open_tries: int = 0
    days: int = 0

    @property
    def key(self) -> ExecutionKey:
        return (self.offer, self.task, self.round)

    @property
    def renew_ms(self) -> int:
        """Pause between renewals: three within a lease."""
        return max(self.lease_ms // 3, RENEW_MS_MIN)

    @property
    def unfinished(self) -> bool:
        """Whether it takes or will take a slot."""
        return self.state in _UNFINISHED


class Duties:
    """The duties of this node, in the order they were taken on."""

    def __init__(self) -> None:
        self._duties: dict[ExecutionKey, Duty] = {}
        self._by_offer: dict[bytes, dict[int, Duty]] = {}  # offer -> task -> its duty
        self._by_owner: Counter[bytes] = Counter()
        self._changed: dict[ExecutionKey, None] = {}
        self.ready: dict[ExecutionKey, Duty] = {}  # waiting for a slot
        self.running: dict[ExecutionKey, Duty] = {}
        self.due: Timers[ExecutionKey] = Timers()  # when an unfinished or sealed duty needs another message
        self.days: Timers[ExecutionKey] = Timers()
        self.progress: dict[ExecutionKey, tuple[int, int]] = {}  # phase and permille; not worth a write

    def __len__(self) -> int:
        return len(self._duties)

    def take(self, duty: Duty, now: Now) -> None:
        """Add a duty; its first renewal is due a third of a lease from now."""
        self._add(duty)
        self.touch(duty)
        self.due.set(duty.key, now.mono_ms + duty.renew_ms)
        self.days.set(duty.key, now.mono_ms + DAY_MS)

    def move(self, duty: Duty, state: DutyState) -> None:
        """Take a duty one step further; sealed ones are due for their opening at once."""
        duty.state = moved(duty.state, state, DUTY_STEPS)
        self._sort(duty)
        self.touch(duty)
        if state == DutyState.SEALED:
            self.due.set(duty.key, 0)
        elif not duty.unfinished:
            self.due.drop(duty.key)
            self.progress.pop(duty.key, None)

    def touch(self, duty: Duty) -> None:
        """Note that a duty changed; the next `record` writes it."""
        self._changed[duty.key] = None

    def drop(self, duty: Duty) -> None:
        """Forget a duty; the next `record` deletes it."""
        key = duty.key
        del self._duties[key], self._by_offer[duty.offer][duty.task]
        if not self._by_offer[duty.offer]:
            del self._by_offer[duty.offer]
        self._by_owner[duty.owner] -= 1
        if not self._by_owner[duty.owner]:
            del self._by_owner[duty.owner]
        for table in (self.ready, self.running, self.progress):
            table.pop(key, None)
        self.due.drop(key)
        self.days.drop(key)
        self.touch(duty)

    def line_up(self) -> None:
        """Put those that wait for a slot in the order they were taken on, or restored."""
        self.ready = {key: duty for key, duty in self._duties.items() if duty.state == DutyState.ASSIGNED}

    def get(self, key: ExecutionKey) -> Duty | None:
        return self._duties.get(key)

    def of_task(self, offer: bytes, task: int) -> Duty | None:
        """The duty for a task, whatever its round; there is one at most."""
        return self._by_offer.get(offer, {}).get(task)

    def of_offer(self, offer: bytes) -> list[Duty]:
        return list(self._by_offer.get(offer, {}).values())

    def count_of(self, owner: bytes) -> int:
        """How many duties are owed to one owner."""
        return self._by_owner[owner]

    def all(self) -> Iterable[Duty]:
        return self._duties.values()

    def unfinished(self) -> int:
        """Duties that still take or will take a slot."""
        return len(self.ready) + len(self.running)

    def _add(self, duty: Duty) -> None:
        self._duties[duty.key] = duty
        self._by_offer.setdefault(duty.offer, {})[duty.task] = duty
        self._by_owner[duty.owner] += 1
        self._sort(duty)

    def _sort(self, duty: Duty) -> None:
        for state, table in ((DutyState.ASSIGNED, self.ready), (DutyState.RUNNING, self.running)):
            if duty.state == state:
                table[duty.key] = duty
            else:
                table.pop(duty.key, None)

    # --- record ----------------------------------------------------------------------------------------------------
    def record(self, step: Step) -> None:
        """Put what changed into the step's facts."""
        for key in self._changed:
            duty = self._duties.get(key)
            step.facts[_fact(key)] = None if duty is None else encode(duty)
        self._changed = {}

    def restore(self, facts: dict[bytes, bytes]) -> None:
        """Rebuild the duties from recorded facts; each is due at once."""
        for key, raw in sorted(facts.items()):
            if key.startswith(DUTY_PREFIX):
                duty = decode(raw, Duty, size_max=_RECORD_BYTES_MAX)
                self._add(duty)
                if duty.unfinished or duty.state == DutyState.SEALED:
                    self.due.set(duty.key, 0)

    def check_invariants(self) -> None:
        """
        Raises:
            AssertionError: the tables contradict each other.
        """
        assert sum(map(len, self._by_offer.values())) == len(self._duties)
        for key, duty in self._duties.items():
            assert duty.key == key
            assert self.of_task(duty.offer, duty.task) is duty, "two duties for one task"
            assert (key in self.ready) == (duty.state == DutyState.ASSIGNED)
            assert (key in self.running) == (duty.state == DutyState.RUNNING)
            assert (key in self.due) == (duty.unfinished or duty.state == DutyState.SEALED), "a duty nobody minds"
            assert duty.unfinished or duty.commit is not None
        assert self.progress.keys() <= self.running.keys() | self.ready.keys()


def _fact(key: ExecutionKey) -> bytes:
    offer, task, round_ = key
    return DUTY_PREFIX + offer + task.to_bytes(4, "big") + round_.to_bytes(4, "big")
