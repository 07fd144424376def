"""What a worker has promised: each duty as recorded, and when it is due for another message.

Knows duties as data. Must never decide anything: that is worker.py.
"""

from collections.abc import Iterable

import msgspec

from daemon.core.states import DUTY_STEPS, DutyState, moved
from daemon.core.step import ExecutionKey, Now, Step
from nexapod.encoding import decode, encode

DUTY_PREFIX = b"duty/"
_RECORD_BYTES_MAX = 4096


class Duty(msgspec.Struct, array_like=True):
    """One execution this node owes."""

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

    @property
    def key(self) -> ExecutionKey:
        return (self.offer, self.task, self.round)

    def move(self, state: DutyState) -> None:
        self.state = moved(self.state, state, DUTY_STEPS)


class Duties:
    """The duties of this node, in the order they were taken on."""

    def __init__(self) -> None:
        self._duties: dict[ExecutionKey, Duty] = {}
        self._by_task: dict[tuple[bytes, int], Duty] = {}
        self._due: dict[ExecutionKey, int] = {}  # monotonic ms; missing: at once, as after a restart
        self._written: dict[ExecutionKey, bytes] = {}
        self.progress: dict[ExecutionKey, tuple[int, int]] = {}  # phase and permille; not worth a write

    def take(self, key: ExecutionKey, duty: Duty, now: Now) -> None:
        """Add a duty; its first renewal is due a third of a lease from now."""
        self._duties[key] = duty
        self._by_task[duty.offer, duty.task] = duty
        self.due_at(duty, now.mono_ms + duty.lease_ms // 3)

    def drop(self, key: ExecutionKey) -> None:
        """Forget a duty; the next `record` deletes it."""
        duty = self._duties.pop(key)
        del self._by_task[duty.offer, duty.task]
        self._due.pop(key, None)
        self.progress.pop(key, None)

    def get(self, key: ExecutionKey) -> Duty | None:
        return self._duties.get(key)

    def of_task(self, offer: bytes, task: int) -> Duty | None:
        """The duty for a task, whatever its round; there is one at most."""
        return self._by_task.get((offer, task))

    def of_offer(self, offer: bytes) -> list[Duty]:
        return [duty for duty in self._duties.values() if duty.offer == offer]

    def all(self) -> Iterable[Duty]:
        return self._duties.values()

    def unfinished(self) -> int:
        """Duties that still take or will take a slot."""
        return sum(duty.state in (DutyState.ASSIGNED, DutyState.RUNNING) for duty in self._duties.values())

    # --- when ------------------------------------------------------------------------------------------------------
    def due_now(self, duty: Duty) -> None:
        self._due[duty.key] = 0

    def due_at(self, duty: Duty, at_ms: int) -> None:
        self._due[duty.key] = at_ms

    def is_due(self, duty: Duty, now: Now) -> bool:
        return self.when(duty) <= now.mono_ms

    def when(self, duty: Duty) -> int:
        return self._due.get(duty.key, 0)

    # --- record ----------------------------------------------------------------------------------------------------
    def record(self, step: Step) -> None:
        """Put what changed into the step's facts."""
        for key, duty in self._duties.items():
            raw = encode(duty)
            if self._written.get(key) != raw:
                self._written[key] = raw
                step.facts[_fact(key)] = raw
        for key in [key for key in self._written if key not in self._duties]:
            del self._written[key]
            step.facts[_fact(key)] = None

    def restore(self, facts: dict[bytes, bytes]) -> None:
        """Rebuild the duties from recorded facts."""
        for key, raw in sorted(facts.items()):
            if key.startswith(DUTY_PREFIX):
                duty = decode(raw, Duty, size_max=_RECORD_BYTES_MAX)
                self._duties[duty.key] = duty
                self._by_task[duty.offer, duty.task] = duty
                self._written[duty.key] = raw


def _fact(key: ExecutionKey) -> bytes:
    offer, task, round_ = key
    return DUTY_PREFIX + offer + task.to_bytes(4, "big") + round_.to_bytes(4, "big")
