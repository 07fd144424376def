"""The peer book: bounded, kept over restarts, loses the least useful first."""

import json
from pathlib import Path

from bootstrap.peerbook import PEERS_MAX, PeerBook, read_book, write_book
from nexapod.identity import Key
from nexapod.limits import ADDRESSES_MAX

KEYS = [Key.from_seed(bytes([n + 1]) * 32).public for n in range(6)]


def address(n: int) -> str:
    return f"/ip4/192.0.2.{n + 1}/tcp/4001"


def test_a_book_reads_back_in_order_of_promise(tmp_path: Path) -> None:
    book = PeerBook()
    for n in range(3):
        book.learn(KEYS[n], [address(n)])
    book.succeeded(KEYS[1], address(9), now_ms=50)
    book.failed(KEYS[0])
    write_book(tmp_path / "peers.json", book)
    again = read_book(tmp_path / "peers.json")
    assert again == book
    assert [peer.key for peer in again.best_first()] == [KEYS[1], KEYS[2], KEYS[0]]
    assert again.peers[KEYS[1]].addresses == (address(9), address(1))


def test_addresses_of_a_peer_are_bounded_newest_first() -> None:
    book = PeerBook()
    for n in range(20):
        book.learn(KEYS[0], [address(n)])
    assert book.peers[KEYS[0]].addresses == tuple(address(n) for n in range(19, 19 - ADDRESSES_MAX, -1))


def test_a_full_book_loses_who_failed_most_then_who_is_longest_silent_and_never_a_pinned_one() -> None:
    book = PeerBook(peers_max=3)
    book.learn(KEYS[0], [address(0)], pinned=True)
    for _ in range(9):
        book.failed(KEYS[0])
    book.learn(KEYS[1], [address(1)])
    book.learn(KEYS[2], [address(2)])
    book.succeeded(KEYS[1], address(1), now_ms=10)
    book.succeeded(KEYS[2], address(2), now_ms=20)
    book.learn(KEYS[3], [address(3)])
    assert set(book.peers) == {KEYS[0], KEYS[1], KEYS[2]}, "a rumour drives out nobody who answers"
    book.failed(KEYS[2])
    book.learn(KEYS[3], [address(3)])
    assert set(book.peers) == {KEYS[0], KEYS[1], KEYS[3]}
    book.learn(KEYS[4], [address(4)], pinned=True)
    assert set(book.peers) == {KEYS[0], KEYS[1], KEYS[4]}, "the one never seen goes before the one seen"
    book.learn(KEYS[5], [address(5)], pinned=True)
    assert set(book.peers) == {KEYS[0], KEYS[4], KEYS[5]}
    book.learn(KEYS[1], [address(1)], pinned=True)
    assert len(book.peers) == 3, "a book full of pinned peers takes no more"


def test_a_flood_of_invented_peers_drives_out_none_that_ever_answered() -> None:
    """Also while this node is cut off, when everybody it knows seems to fail: the eclipse would begin here."""
    book = PeerBook(peers_max=4)
    for n in range(3):
        book.learn(KEYS[n], [address(n)])
        book.succeeded(KEYS[n], address(n), now_ms=1 + n)
        for _ in range(50):
            book.failed(KEYS[n])
    for number in range(500):
        book.learn(number.to_bytes(32, "big"), [address(5)])
    assert len(book.peers) == 4
    assert set(KEYS[:3]) <= set(book.peers)


def test_what_nobody_could_dial_is_not_written_down(tmp_path: Path) -> None:
    """A peer may say anything; one odd address must not cost the good one beside it."""
    book = PeerBook()
    odd = ["/ip4/0.0.0.0/tcp/1", "/unix/x", "\x1b[31m", "", "/ip4/192.0.2.1/udp/1/quic-v1", "/ip6/fe80::1%eth0/tcp/1"]
    book.learn(KEYS[0], [*odd, address(1)])
    book.learn(KEYS[1], odd)
    book.learn(KEYS[2], (address(n) for n in iter(int, 1)))  # without end
    assert set(book.peers) == {KEYS[0], KEYS[2]}
    assert book.peers[KEYS[0]].addresses == (address(1),)
    write_book(tmp_path / "peers.json", book)
    assert read_book(tmp_path / "peers.json") == book


def test_the_fullest_book_reads_back(tmp_path: Path) -> None:
    book = PeerBook()
    long = [f"/dns4/{n}{'.'.join(['a' * 60] * 3)}/tcp/65535" for n in range(ADDRESSES_MAX)]
    for number in range(2 * PEERS_MAX):
        book.learn(Key.from_seed(number.to_bytes(32, "big")).public, long, pinned=number % 2 == 0)
    assert len(book.peers) == PEERS_MAX
    write_book(tmp_path / "peers.json", book)
    assert read_book(tmp_path / "peers.json") == book
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


def test_damage_on_disk_costs_only_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    assert read_book(path).peers == {}
    book = PeerBook()
    book.learn(KEYS[0], [address(0)])
    book.learn(KEYS[1], [address(1)])
    write_book(path, book)
    document = json.loads(path.read_text())
    document["peers"][0]["addresses"] = ["rubbish"]
    document["peers"] += [None, {}, {"addresses": []}, {"addresses": 7, "last_ok_ms": 1, "failures": 0, "pinned": 1}]
    path.write_text(json.dumps(document))
    assert len(read_book(path).peers) == 1
    for text in ("", "[]", '{"peers": 3}', "[" * 100_000):
        path.write_text(text)
        assert read_book(path).peers == {}


def test_forget_says_whether_there_was_something_to_forget() -> None:
    book = PeerBook()
    book.learn(KEYS[0], [address(0)])
    assert book.forget(KEYS[0])
    assert not book.forget(KEYS[0])
