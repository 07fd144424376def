"""What two nodes ask each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import sync as sync_module
from ledger.replica import Replica
from ledger.sync import FORKED, Frontier, wants
from nexapod.encoding import encode
from nexapod.hashing import Tag, blob_id, merkle_root, tagged
from nexapod.messages import AskEvents, AskFrontier, Report
from tests.ledger.scribe import NETID, Scribe, everything

REMARK = Report(bytes(32), 0, "")


def node(*scribes: Scribe) -> Replica:
    replica = Replica(NETID)
    replica.apply(replica.plan(everything(*scribes)))
    return replica


def exchange(mine: Replica, theirs: Replica, *scribes: Scribe) -> None:
    """One round of the pull path: mine asks theirs, as daemons do. `scribes`: who wrote what theirs may hold."""
    stored = {event.id: event for event in everything(*scribes)}
    reply = theirs.frontier.answer(AskFrontier(mine.frontier_root(), b""))
    for ask in mine.wants(reply):
        ids = (theirs.id_at(ask.feed, seq) for seq in range(ask.seq, theirs.heads[ask.feed].seq + 1))
        page = [stored[event_id] for event_id in ids if event_id is not None]
        fork = theirs.forks.get(ask.feed)
        if fork is not None and ask.seq <= fork.seq:
            page.append(fork.other)
        mine.apply(mine.plan(page))
        mine.check_invariants()


def crowd(count: int) -> list[Scribe]:
    return sorted((Scribe(f"node {i}") for i in range(count)), key=lambda scribe: scribe.feed)


def test_equal_frontiers_have_nothing_to_say() -> None:
    one = node(*crowd(3))
    ask = AskFrontier(one.frontier_root(), b"")
    assert one.frontier.answer(ask).heads == ()
    assert len(one.frontier.answer(AskFrontier(bytes(32), b"")).heads) == 3


def test_pages_cover_every_feed_once() -> None:
    scribes = crowd(7)
    replica = node(*scribes)
    seen, after, more = [], b"", True
    while more:
        reply = replica.frontier.page(after, limit=3)
        seen += [note.feed for note in reply.heads]
        after, more = seen[-1], reply.more
    assert seen == [scribe.feed for scribe in scribes]
    assert replica.frontier.page(seen[-1], limit=3).heads == ()


def test_wants_only_what_is_newer() -> None:
    ann, bob, cal = crowd(3)
    mine = node(ann, bob)
    ann.write(REMARK)
    theirs = node(ann, bob, cal)
    assert wants(mine.heads, theirs.frontier.page(b"")) == [AskEvents(ann.feed, 0), AskEvents(cal.feed, 0)]
    assert wants(theirs.heads, mine.frontier.page(b"")) == []


def test_a_forked_feed_is_asked_for_its_proof_and_then_left_alone() -> None:
    ann, twin = Scribe("ann"), Scribe("ann")
    ann.write(REMARK)
    twin.write(Report(bytes(32), 1, ""))
    mine, theirs = node(ann), node(twin)
    (ask,) = wants(mine.heads, theirs.frontier.page(b""))
    assert ask == AskEvents(ann.feed, 1)
    applied = mine.apply(mine.plan(twin.events[ask.seq :]))
    assert len(applied.forks) == 1
    assert wants(mine.heads, theirs.frontier.page(b""), mine.forks) == []


def test_a_feed_that_diverged_long_ago_still_gives_a_proof() -> None:
    ann, twin = Scribe("ann"), Scribe("ann")
    for _ in range(3):
        ann.write(REMARK)
    for i in range(6):
        twin.write(Report(bytes(32), i + 1, ""))
    mine, theirs = node(ann), node(twin)
    (ask,) = wants(mine.heads, theirs.frontier.page(b""))
    applied = mine.apply(mine.plan(twin.events[ask.seq :]))
    assert applied.forks[0].feed == ann.feed
    assert applied.stored == ()


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_proof_reaches_who_holds_either_branch_a_part_or_nothing(length: int) -> None:
    ann, twin = Scribe("ann"), Scribe("ann")
    for i in range(3):
        ann.write(REMARK)
        twin.write(Report(bytes(32), i + 1, ""))
    knows = node(ann)
    knows.apply(knows.plan(twin.events))
    assert knows.forks.keys() == {ann.feed}
    for holder in (ann, twin):
        mine = Replica(NETID)
        mine.apply(mine.plan(holder.events[:length]))
        exchange(mine, knows, ann, twin)
        assert mine.forks.keys() == {ann.feed}
        assert mine.frontier_root() == knows.frontier_root()
        assert mine.wants(knows.frontier.page(b"")) == []
        assert knows.wants(mine.frontier.page(b"")) == []


def test_the_certified_part_of_a_forked_feed_is_still_fetched() -> None:
    wit, ann = Scribe("wit"), Scribe("ann")
    for _ in range(4):
        ann.write(REMARK)
    wit.ack(ann.events[3])
    other = ann.rewrite(4, Report(bytes(32), 1, ""))
    mine, theirs = (Replica(NETID, frozenset((wit.feed,)), 1) for _ in range(2))
    theirs.apply(theirs.plan([*everything(wit, ann), other]))
    early = ann.rewrite(1, Report(bytes(32), 2, ""))
    mine.apply(mine.plan([*wit.events, *ann.events[:2], early]))  # the proof is here before the certified events
    assert mine.forks.keys() == theirs.forks.keys() == {ann.feed}
    assert mine.frontier_root() != theirs.frontier_root()
    exchange(mine, theirs, wit, ann)
    assert mine.heads[ann.feed].seq == 3
    assert mine.frontier_root() == theirs.frontier_root()
    assert mine.fold.state_root() == theirs.fold.state_root()
    assert mine.wants(theirs.frontier.page(b"")) == []


def test_what_would_be_refused_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "FEEDS_MAX", 4)
    scribes = crowd(6)
    mine, theirs = node(*scribes[:3]), node(*scribes)
    assert wants(mine.heads, theirs.frontier.page(b"")) == [AskEvents(scribes[3].feed, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.sampled_from(["move", "fork", "root"])), max_size=60)
)
def test_the_root_is_the_merkle_root_of_the_heads_however_they_came(moves: list[tuple[int, int, str]]) -> None:
    frontier = Frontier()
    leaves: dict[bytes, bytes] = {}
    for number, seq, kind in moves:
        feed = blob_id(bytes((number,)))
        match kind:
            case "move":
                frontier.move(feed, seq, feed)
                leaves[feed] = encode((feed, seq, feed))
            case "fork":
                frontier.fork(feed, 0, seq)
                leaves[feed] = encode((feed, seq + 1, FORKED))
            case _:
                frontier.root()
    assert frontier.root() == tagged(Tag.FRONTIER, merkle_root([leaves[feed] for feed in sorted(leaves)]))


def test_repeated_exchange_makes_two_nodes_equal() -> None:
    scribes = crowd(6)
    for scribe in scribes[:4]:
        scribe.write(REMARK)
    one, two = node(*scribes[:3]), node(*scribes[2:])
    exchange(one, two, *scribes)
    exchange(two, one, *scribes)
    assert one.frontier_root() == two.frontier_root()
    assert one.fold.state_root() == two.fold.state_root()


def test_the_root_names_every_head() -> None:
    scribes = crowd(3)
    roots = {node(*scribes[:n]).frontier_root() for n in range(4)}
    assert len(roots) == 4
    assert blob_id(b"") not in roots
