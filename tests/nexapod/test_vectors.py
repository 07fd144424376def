"""The golden vectors: what was signed and hashed once must be made and read the same for ever."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from bootstrap.bootstrap_file import read_bootstrap
from bootstrap.manifest import decode_manifest
from nexapod.encoding import encode
from nexapod.events import check_note, make_event, open_event, open_note
from nexapod.hashing import Tag
from nexapod.identity import Key, verify
from nexapod.job import decode_resolved
from nexapod.limits import ADVERT_BYTES_MAX, CLAIM_BYTES_MAX, EVENT_BYTES_MAX
from nexapod.messages import DATA_OF_KIND, Advert, Assignment, Claim
from runtime.outputs import parse_manifest
from tests.vectors import write


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((write.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


# --- made the same ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", write.VECTORS)
def test_every_byte_is_what_it_was(name: str) -> None:
    written = (write.FOLDER / f"{name}.json").read_bytes().decode()
    assert write.text_of(name) == written, "a format changed: give it a new number, never edit the vectors"


def test_there_is_no_file_that_nothing_checks() -> None:
    assert {path.stem for path in write.FOLDER.glob("*.json")} == set(write.VECTORS)


def test_what_is_there_is_never_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(write, "FOLDER", tmp_path)
    (tmp_path / "events.json").write_text("precious")
    assert write.main() == 1
    assert (tmp_path / "events.json").read_text() == "precious"
    assert {path.stem for path in tmp_path.glob("*.json")} == set(write.VECTORS), "what is missing is written"


# --- read the same, and by the words of the protocol alone -----------------------------------------------------------
def test_every_event_opens_is_signed_and_is_made_again() -> None:
    vectors = read("events")
    netid, public = bytes.fromhex(vectors["netid"]), bytes.fromhex(vectors["public"])
    key = Key.from_seed(bytes.fromhex(vectors["seed"]))
    prev = b""
    for seq, vector in enumerate(vectors["events"]):
        event = open_event(bytes.fromhex(vector["raw"]), netid)
        assert (event.id.hex(), event.kind, event.seq, event.prev) == (vector["id"], vector["kind"], seq, prev)
        assert event.feed.hex() == vectors["feed"]
        assert type(event.data).__name__ == vector["name"]
        assert event.signed_by(public)
        assert event.data is not None
        feed = event.feed if seq else b""
        again = make_event(key, netid, feed=feed, seq=seq, prev=prev, ts=event.ts, data=event.data)
        assert again == event
        prev = event.id
    assert [vector["kind"] for vector in vectors["events"]] == sorted(DATA_OF_KIND)


def test_an_event_is_what_the_protocol_page_says() -> None:
    """No code of ours but the signature: id = SHA-256(tag, 0, netid, body), envelope = [body, signature]."""
    vectors = read("events")
    netid, public = bytes.fromhex(vectors["netid"]), bytes.fromhex(vectors["public"])
    for vector in vectors["events"]:
        raw = bytes.fromhex(vector["raw"])
        assert raw[0] == 0x92
        if raw[1] == 0xC4:
            length, start = raw[2], 3
        else:
            assert raw[1] == 0xC5
            length, start = struct.unpack(">H", raw[2:4])[0], 4
        body, rest = raw[start : start + length], raw[start + length :]
        assert rest[:2] == b"\xc4\x40"
        digest = hashlib.sha256(b"nexapod/ev/1\0" + netid + body).digest()
        assert digest.hex() == vector["id"]
        assert verify(public, digest, rest[2:])
        assert body[0] == 0x97
        assert body[1] == 1, "the version"


def test_the_network_and_its_first_feed_follow_from_the_manifest() -> None:
    vectors = read("network")
    manifest, raw = bytes.fromhex(vectors["manifest"]), bytes.fromhex(vectors["genesis"])
    assert encode(decode_manifest(manifest)) == manifest
    assert hashlib.sha256(b"nexapod/manifest/1\0" + manifest).hexdigest() == vectors["netid"]
    genesis = open_event(raw, bytes.fromhex(vectors["netid"]))
    assert genesis.id.hex() == genesis.feed.hex() == vectors["feed"]
    digest = hashlib.sha256(b"nexapod/nextkey/1\0" + bytes.fromhex(vectors["next_public"]))
    assert digest.hexdigest() == vectors["next_key_digest"]


@pytest.mark.parametrize(
    ("name", "kind", "tag", "size_max"),
    [
        ("advert", Advert, Tag.ADVERT, ADVERT_BYTES_MAX),
        ("claim of capacity", Claim, Tag.CLAIM, CLAIM_BYTES_MAX),
        ("claim of one offer", Claim, Tag.CLAIM, CLAIM_BYTES_MAX),
        ("assignment", Assignment, Tag.ASSIGNMENT, EVENT_BYTES_MAX),
    ],
)
def test_every_note_opens_and_is_signed(name: str, kind: Any, tag: Tag, size_max: int) -> None:
    vectors = read("notes")
    netid, raw = bytes.fromhex(vectors["netid"]), bytes.fromhex(vectors[name])
    _, note = open_note(raw, kind, tag, netid, size_max=size_max)
    check_note(note, bytes.fromhex(vectors["public"]))


def test_every_tag_hashes_as_the_protocol_page_says() -> None:
    vectors = read("hashes")
    for tag, digest in vectors["tagged"].items():
        assert hashlib.sha256(tag.encode() + b"\0" + bytes.fromhex(vectors["input"])).hexdigest() == digest
    hidden = bytes.fromhex(vectors["netid"]) + bytes.fromhex(vectors["hidden"])
    assert hashlib.sha256(b"nexapod/commit/1\0" + hidden).hexdigest() == vectors["commit digest"]


def test_the_first_job_reads_back_and_is_known_by_the_hash_of_its_blob() -> None:
    vectors = read("job")
    raw = bytes.fromhex(vectors["resolved"])
    assert decode_resolved(raw) == write.first_job()
    assert hashlib.sha256(raw).hexdigest() == vectors["descriptor_hash"]
    assert vectors["price_micro"] == 1_200_000


def test_the_bootstrap_file_reads_back() -> None:
    found = read_bootstrap(read("bootstrap")["text"])
    assert [name for _, name in found.vouchers()] == ["first", ""]
    assert found.netid.hex() == read("network")["netid"]


def test_the_result_reads_back_in_the_order_of_its_bytes() -> None:
    vectors = read("result")
    raw = bytes.fromhex(vectors["manifest"])
    exit_code, files = parse_manifest(raw)
    assert exit_code == 0
    assert [file.path for file in files] == ["Z", "a/b/model.pdb", "empty", "scores.csv", "é.txt"]
    assert hashlib.sha256(raw).hexdigest() == vectors["root"]
    assert parse_manifest(bytes.fromhex(vectors["failed"])) == (137, ())
