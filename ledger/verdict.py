"""The rules of a settlement: what was hidden, who agrees, what may be paid.

The one place that knows them; an owner decides with them and every peer checks with them, as a pure function of what
the events name. Must never know feeds, balances, storage or time.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from nexapod.encoding import encode
from nexapod.hashing import Tag, tagged
from nexapod.messages import (
    Hidden,
    Independence,
    Mode,
    Offer,
    Opening,
    OpeningNote,
    Settlement,
    Verdict,
    Voided,
)

_EXACT_MODES = (Mode.EXACT, Mode.EXACT_CLASS)


class SealedCommit(NamedTuple):
    """One execution as its commit event bound it: `id` is that event, `worker` its feed."""

    id: bytes
    worker: bytes
    task: int
    round: int
    digest: bytes


# The feeds that the worker of a commit answers for, as its own feed declared it before; the worker may be left out.
# Asked about a judge, or about a node not yet assigned, with an empty commit id.
Operators: TypeAlias = Callable[[SealedCommit], frozenset[bytes]]
# Executions of one task that were opened: commit id -> the commit and the result root it hid.
Opened: TypeAlias = Mapping[bytes, tuple[SealedCommit, bytes]]
# The same with all that the worker privately opened.
Noted: TypeAlias = Mapping[bytes, tuple[SealedCommit, OpeningNote]]


class Case(NamedTuple):
    """One offer as a judge sees it. `owner` is the feed that published it."""

    netid: bytes
    offer_id: bytes
    offer: Offer
    owner: bytes
    operators: Operators

    def names(self, commit: SealedCommit) -> frozenset[bytes]:
        """What two independent executions must not share."""
        if self.offer.independence is Independence.NODE:
            return frozenset((commit.worker,))
        return self.operators(commit) | {commit.worker}

    def is_own(self, commit: SealedCommit) -> bool:
        """Whether publisher or steward executed this themselves: allowed, never paid, never a witness of agreement."""
        names = self.names(commit)
        judges = (self.owner, self.offer.steward)
        return any(
            judge is not None and not names.isdisjoint(self.names(SealedCommit(b"", judge, 0, 0, b"")))
            for judge in judges
        )


class Agreed(NamedTuple):
    """The agreed result root, and all executions that found it, in commit-id order."""

    root: bytes
    commits: tuple[SealedCommit, ...]


class Undecided(NamedTuple):
    """No root has a quorum yet, or two have: the executions by the root they found."""

    groups: Mapping[bytes, tuple[SealedCommit, ...]]


def alone(commit: SealedCommit) -> frozenset[bytes]:
    """The operators of a ledger without vouches: every feed answers for itself."""
    return frozenset((commit.worker,))


def commit_digest(netid: bytes, hidden: Hidden) -> bytes:
    """What a commit entry shows of an execution before it is opened."""
    return tagged(Tag.COMMIT, netid, encode(hidden))


def seed_commitment(seed: bytes) -> bytes:
    """What an offer shows of the seed that draws executors, until it closes."""
    return tagged(Tag.SEED_COMMITMENT, seed)


def opens(case: Case, commit: SealedCommit, opening: Opening, agreed_root: bytes) -> bool:
    """Whether `opening` is what `commit` hid; an opening without a root claims the agreed one."""
    root = agreed_root if opening.root is None else opening.root
    hidden = Hidden(
        case.offer_id,
        commit.task,
        commit.round,
        commit.worker,
        opening.numeric_class,
        opening.work,
        root,
        opening.nonce,
    )
    return opening.commit == commit.id and commit_digest(case.netid, hidden) == commit.digest


def note_opens(case: Case, commit: SealedCommit, note: OpeningNote) -> bool:
    """Whether a private opening, as a worker hands it to the owner, is what `commit` hid."""
    if (note.task, note.round) != (commit.task, commit.round):
        return False
    return opens(case, commit, _public(note, note.root, 0), note.root)


def tally(case: Case, opened: Opened) -> Agreed | Undecided:
    """Which root, if any, a quorum of independent executions found.

    With quorum 1 any single execution decides, the owner's own included: such a result is unverified and earns nothing.
    """
    groups: dict[bytes, list[SealedCommit]] = {}
    for commit_id in sorted(opened):
        commit, root = opened[commit_id]
        groups.setdefault(root, []).append(commit)
    roots = [root for root, commits in groups.items() if support(case, commits) >= case.offer.quorum]
    if len(roots) == 1:
        return Agreed(roots[0], tuple(groups[roots[0]]))
    return Undecided({root: tuple(commits) for root, commits in groups.items()})


def support(case: Case, commits: Iterable[SealedCommit]) -> int:
    """How many executions among `commits` are pairwise independent, by a rule every peer repeats alike.

    Those that answer for the fewest feeds go first, so that nobody weakens others by vouching for them.
    """
    named = sorted(((case.names(commit), commit) for commit in commits), key=_by_modesty)
    taken: set[bytes] = set()
    count = 0
    for names, commit in named:
        if case.offer.quorum > 1 and case.is_own(commit):
            continue
        if taken.isdisjoint(names):
            taken |= names
            count += 1
    return count


def _by_modesty(named: tuple[frozenset[bytes], SealedCommit]) -> tuple[int, bytes]:
    return len(named[0]), named[1].id


def award(case: Case, agreed: Agreed, opened: Noted, left: int) -> Settlement:
    """The settlement an honest owner writes: each agreeing worker gets the price, while `left` of the lock lasts.

    `opened` holds every opened execution of the task, the disagreeing ones too. The result passes `check_settlement`.
    """
    paid = _payable(case, agreed.commits)
    amount = min(case.offer.price, left // len(paid)) if paid else 0
    openings = []
    for commit_id in sorted(opened):
        _, note = opened[commit_id]
        root = None if note.root == agreed.root else note.root
        openings.append(_public(note, root, amount if commit_id in paid else 0))
    return Settlement(agreed.commits[0].task, agreed.root, tuple(openings))


def evidence(opened: Noted) -> tuple[Opening, ...]:
    """The openings of a task that ends unpaid, as a void carries them."""
    return tuple(_public(opened[commit_id][1], opened[commit_id][1].root, 0) for commit_id in sorted(opened))


def _public(note: OpeningNote, root: bytes | None, amount: int) -> Opening:
    return Opening(note.commit, note.nonce, note.numeric_class, note.work, root, amount)


def _payable(case: Case, commits: Iterable[SealedCommit]) -> set[bytes]:
    """Commit ids that may be paid: one execution of each worker, never the owner's own, nothing unverified."""
    if case.offer.quorum < 2:
        return set()
    first: dict[bytes, bytes] = {}
    for commit in sorted(commits):
        if not case.is_own(commit):
            first.setdefault(commit.worker, commit.id)
    return set(first.values())


def check_settlement(case: Case, sealed: Mapping[bytes, SealedCommit], settlement: Settlement, left: int) -> str | None:
    """None when the settlement is valid, else the fault in words.

    `sealed`: the commits the judge's own chain sealed for this task, by commit id; `left`: micro-credits left of the
    offer's lock. That the task is not settled already is for the caller to know.
    """
    opened = _open_all(case, sealed, settlement.task, settlement.openings, settlement.root)
    if isinstance(opened, str):
        return opened
    match tally(case, opened):
        case Agreed(root, commits):
            if root != settlement.root:
                return "the quorum agrees on another root"
        case Undecided():
            return "no quorum of independent executions agrees"
    paid = {opening.commit: opening.amount for opening in settlement.openings if opening.amount}
    if not paid:
        return None
    if case.offer.quorum < 2:
        return "an unverified result pays nothing"
    if not paid.keys() <= {commit.id for commit in commits}:
        return "an execution that disagrees is paid"
    workers = [opened[commit_id][0].worker for commit_id in paid]
    if any(case.is_own(opened[commit_id][0]) for commit_id in paid):
        return "the owner pays its own execution"
    if len(set(workers)) < len(workers):
        return "a worker is paid twice for one task"
    if len(set(paid.values())) > 1:
        return "agreeing executions are paid differently"
    if max(paid.values()) > case.offer.price:
        return "more is paid than the offer's price"
    if sum(paid.values()) > left:
        return "more is paid than is left of the lock"
    return None


def check_void(case: Case, sealed: Mapping[bytes, SealedCommit], voided: Voided) -> str | None:
    """None when the void is valid, else the fault in words. A failure must be shown by a quorum that failed alike."""
    if any(opening.amount for opening in voided.openings):
        return "a void pays"
    if any(opening.root is None for opening in voided.openings):
        return "an opening names no root"
    opened = _open_all(case, sealed, voided.task, voided.openings, b"")
    if isinstance(opened, str):
        return opened
    if voided.verdict is Verdict.FAILED and isinstance(tally(case, opened), Undecided):
        return "no quorum of independent executions failed alike"
    return None


def _open_all(
    case: Case, sealed: Mapping[bytes, SealedCommit], task: int, openings: tuple[Opening, ...], root: bytes
) -> dict[bytes, tuple[SealedCommit, bytes]] | str:
    """Every opening with its sealed commit, or the fault in words."""
    if case.offer.mode not in _EXACT_MODES:
        return f"mode {case.offer.mode.name.lower()} is not settled under these rules"
    if task >= case.offer.tasks:
        return "the offer has no such task"
    order = [opening.commit for opening in openings]
    if order != sorted(set(order)):
        return "openings are not in commit-id order"
    opened: dict[bytes, tuple[SealedCommit, bytes]] = {}
    for opening in openings:
        commit = sealed.get(opening.commit)
        if commit is None or commit.task != task:
            return "an opening has no commit sealed for this task"
        if not opens(case, commit, opening, root):
            return "an opening does not open its commit"
        opened[commit.id] = (commit, root if opening.root is None else opening.root)
    return opened
