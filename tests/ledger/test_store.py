"""What is written is on disk, whole and in order, whatever happens to the process."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.layout import VERSION_KEY
from ledger.replica import Fork
from ledger.store import Store
from nexapod.errors import LocalError
from nexapod.hashing import blob_id
from nexapod.messages import Lock, Release, Report
from tests.ledger.killed_writer import COUNT_FACT
from tests.ledger.scribe import NETID, Scribe, everything, walk

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("NEXAPOD_TEST_KILLS", "20"))
REMARK = Report(bytes(32), 0, "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "ledger")
    yield opened
    opened.close()


def long_feed(length: int = 5) -> Scribe:
    ann = Scribe("ann")
    for _ in range(length):
        ann.write(REMARK)
    return ann


# --- writing and reading ---------------------------------------------------------------------------------------------
def test_events_are_found_by_place_and_id(store: Store) -> None:
    ann, bob = long_feed(), Scribe("bob")
    store.write([*ann.events, *bob.events], {})
    assert store.event(ann.events[3].id) == ann.events[3].raw
    assert store.event_at(ann.feed, 3) == ann.events[3].raw
    assert store.position(ann.events[3].id) == (ann.feed, 3)
    assert store.event(bytes(32)) is None
    assert store.event_at(ann.feed, 6) is None
    assert store.position(bytes(32)) is None
    assert set(store.every_id()) == {event.id for event in everything(ann, bob)}


def test_every_event_comes_feed_by_feed_in_seq_order(store: Store) -> None:
    scribes = sorted((long_feed(300), Scribe("bob"), Scribe("cal")), key=lambda scribe: scribe.feed)
    store.write(reversed(everything(*scribes)), {})
    rows = [(event.feed, event.seq, event.raw) for event in everything(*scribes)]
    assert list(store.every_event()) == rows


def test_a_part_of_a_feed_is_bounded_by_count_and_bytes(store: Store) -> None:
    ann = long_feed(9)
    store.write(ann.events, {})
    raws = [event.raw for event in ann.events]
    assert store.events_of(ann.feed, 0, 2**20, 100) == raws
    assert store.events_of(ann.feed, 4, 2**20, 3) == raws[4:7]
    two = len(raws[1]) + len(raws[2])
    assert store.events_of(ann.feed, 1, two, 100) == raws[1:3]
    assert store.events_of(ann.feed, 1, two, 100, room=1) == raws[1:2]
    for nothing in (
        (ann.feed, 10, 2**20, 9),
        (bytes(32), 0, 2**20, 9),
        (ann.feed, 0, 2**20, 0),
        (ann.feed, 2**63, 9, 9),
    ):
        assert store.events_of(*nothing) == []


def test_facts_are_kept_found_by_prefix_and_deleted(store: Store) -> None:
    store.write((), {b"job/1": b"a", b"job/2": b"b", b"task/1": b""})
    assert store.facts(b"job/") == {b"job/1": b"a", b"job/2": b"b"}
    store.write((), {b"job/1": None, b"job/2": b"c"})
    assert store.facts() == {b"job/2": b"c", b"task/1": b""}


def test_forks_are_kept(store: Store) -> None:
    ann = long_feed()
    other = ann.rewrite(2, Report(bytes(32), 1, "another"))
    store.write(ann.events, {}, [Fork(ann.feed, 2, ann.events[2].id, other)])
    assert list(store.every_fork()) == [(ann.feed, 2, other.raw)]


def test_ids_are_found_by_range(store: Store) -> None:
    ann = long_feed(50)
    store.write(ann.events, {})
    ids = sorted(event.id for event in ann.events)
    assert store.ids(ids[3], ids[7], 100) == ids[3:8]
    assert store.ids(ids[3], ids[7], 2) == ids[3:5]
    assert store.ids(bytes(32), b"\xff" * 32, 100) == ids
    assert store.ids(bytes(32), b"\xff" * 32, 0) == []


def test_what_is_about_an_offer_or_a_lock_is_found(store: Store) -> None:
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    settle = walk(owner, (ann, bob))
    offer = owner.events[1]
    lock = ann.write(Lock(offer.id, owner.feed, 1))
    release = ann.write(Release(lock.id, settle.id))
    events = everything(owner, ann, bob)
    store.write(events, {})
    concerned = {(e.feed, e.seq) for e in events if e.kind not in (0, release.kind)}
    assert set(store.about(offer.id)) == concerned
    assert list(store.about(offer.id, ann.feed)) == [place for place in sorted(concerned) if place[0] == ann.feed]
    assert list(store.about(lock.id)) == [(ann.feed, release.seq)]
    assert list(store.about(bytes(32))) == []
    assert list(store.every_subject()) == sorted((offer.id, lock.id))


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    ann = long_feed(2)
    with pytest.raises(TypeError):
        store.write(ann.events, {b"fact": "not bytes"})  # type: ignore[dict-item]
    assert list(store.every_event()) == []
    assert store.facts() == {}


# --- opening ---------------------------------------------------------------------------------------------------------
def refusal(path: Path, *, create: bool = True) -> LocalError:
    with pytest.raises(LocalError) as caught:
        Store(path, create=create)
    assert caught.value.next_step
    assert "\n" not in str(caught.value)
    return caught.value


def test_it_is_there_after_closing(tmp_path: Path) -> None:
    ann = long_feed()
    first = Store(tmp_path / "ledger")
    first.bind(NETID)
    first.write(ann.events, {b"fact": b"1"})
    first.close()
    first.close()
    second = Store(tmp_path / "ledger", create=False)
    second.bind(NETID)
    assert [raw for _, _, raw in second.every_event()] == [event.raw for event in ann.events]
    assert second.facts() == {b"fact": b"1"}
    second.close()


def test_it_belongs_to_one_network(store: Store) -> None:
    store.bind(NETID)
    store.bind(NETID)
    with pytest.raises(LocalError, match="another network"):
        store.bind(blob_id(b"elsewhere"))


def test_a_missing_ledger_is_not_created_by_who_only_reads(tmp_path: Path) -> None:
    assert "there is no ledger" in refusal(tmp_path / "ledger", create=False).what
    assert not (tmp_path / "ledger" / "CURRENT").exists()


def test_a_second_process_is_refused(tmp_path: Path, store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from ledger.store import Store; from nexapod.errors import LocalError\n"
        "try: Store(Path(sys.argv[1]))\n"
        "except LocalError as error: print(error.what, '|', error.next_step)"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"{store.path} is in use | stop the other")


def test_a_path_that_speaks_of_locks_is_not_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.write_bytes(b"a file where a folder should be")
    assert "in use" not in refusal(folder / "lock").what


def test_another_format_is_refused(tmp_path: Path) -> None:
    opened = Store(tmp_path / "ledger")
    opened._db.put(VERSION_KEY, b"999")
    opened.close()
    assert "another format" in refusal(tmp_path / "ledger").what
    assert "another format" in refusal(tmp_path / "ledger").what  # and the lock was let go of


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    opened = Store(tmp_path / "ledger")
    opened.write(long_feed().events, {})
    opened.close()
    (file,) = (tmp_path / "ledger").glob(f"{name}*")
    file.write_bytes(b"rubbish")
    assert "damaged" in refusal(tmp_path / "ledger").what


def test_a_flipped_bit_in_the_log_is_not_passed_over(tmp_path: Path) -> None:
    opened = Store(tmp_path / "ledger")
    for event in long_feed(20).events:
        opened.write([event], {})
    opened.close()
    log = max((tmp_path / "ledger").glob("*.log"), key=lambda file: file.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    assert "damaged" in refusal(tmp_path / "ledger").what


# --- the process dies ------------------------------------------------------------------------------------------------
def kill_a_writer(path: Path, chance: random.Random) -> int:
    """Let a writer run for a moment, kill it, and return how many events it said were on disk."""
    command = [sys.executable, "-m", "tests.ledger.killed_writer", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(chance.randint(1, 12))]
        with suppress(subprocess.TimeoutExpired):
            writer.wait(chance.random() * 0.01)  # anywhere within a write
        writer.kill()
        said += writer.stdout.readlines()
    return max(int(line) for line in said if line.endswith("\n"))


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path, chance = tmp_path / "ledger", random.Random(7)
    before = 0
    for _ in range(KILLS):
        acknowledged = kill_a_writer(path, chance)
        store = Store(path, create=False)
        events = sum(1 for _ in store.every_event())
        assert events >= acknowledged >= before
        assert int(store.facts()[COUNT_FACT]) == events  # events and facts of a batch stand or fall together
        found = audit(store, NETID)
        store.close()
        assert found.ok, found.faults
        before = events
