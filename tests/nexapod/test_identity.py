"""Keys, PeerIds and key files: what opens, what is refused, and what a damaged file reads like."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from nacl import pwhash

from nexapod import identity
from nexapod.errors import LocalError
from nexapod.identity import (
    Key,
    key_of_peer_id,
    key_of_raw_peer_id,
    next_key_digest,
    peer_id,
    read_key,
    verify,
    write_key,
)

KEY = Key.from_seed(b"\x01" * 32)
SEEDS = st.binary(min_size=32, max_size=32)


@pytest.fixture(autouse=True)
def cheap_stretching(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same function at its lowest cost: what is tested is not how long it takes."""
    monkeypatch.setattr(identity, "_OPS", pwhash.argon2id.OPSLIMIT_MIN)
    monkeypatch.setattr(identity, "_MEMORY", pwhash.argon2id.MEMLIMIT_MIN)


# --- keys ------------------------------------------------------------------------------------------------------------
def test_signatures_are_those_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    key = Key.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@settings(derandomize=True, max_examples=50)
@given(SEEDS, st.binary(max_size=100), st.integers(0, 511))
def test_a_signature_holds_for_its_key_and_message_alone(seed: bytes, message: bytes, bit: int) -> None:
    key = Key.from_seed(seed)
    signature = key.sign(message)
    assert verify(key.public, message, signature)
    assert not verify(key.public, message + b"x", signature)
    assert not verify(Key.from_seed(bytes(32)).public, message, signature) or seed == bytes(32)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify(key.public, message, bytes(changed))


L = 2**252 + 27742317777372353535851937790883648493  # the order of the group


def test_a_signature_has_one_spelling() -> None:
    signature = KEY.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + L
    assert not verify(KEY.public, b"m", signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"", bytes(31), bytes(33)])
def test_a_key_that_would_accept_anything_is_refused(public: bytes) -> None:
    assert not verify(public, b"m", b"\x01" + bytes(63))
    assert not verify(public, b"m", bytes(64))


@pytest.mark.parametrize("length", [0, 63, 65, 1000])
def test_a_signature_of_another_length_is_none(length: int) -> None:
    assert not verify(KEY.public, b"m", bytes(length))


def test_a_key_never_shows_its_seed() -> None:
    shown = f"{KEY!r} {KEY}"
    assert KEY.seed.hex() not in shown
    assert KEY.public.hex()[:12] in shown


def test_fresh_keys_differ() -> None:
    assert Key.fresh().seed != Key.fresh().seed
    assert next_key_digest(KEY.public) != next_key_digest(Key.from_seed(b"\x02" * 32).public)


# --- PeerIds ---------------------------------------------------------------------------------------------------------
@settings(derandomize=True, max_examples=50)
@given(SEEDS)
def test_the_peer_id_is_the_one_libp2p_computes_from_the_same_seed(seed: bytes) -> None:
    key, theirs = Key.from_seed(seed), create_new_key_pair(seed)
    assert theirs.public_key.to_bytes() == key.public
    library = ID.from_pubkey(theirs.public_key)
    assert peer_id(key.public) == library.to_base58()
    assert key_of_peer_id(library.to_base58()) == key_of_raw_peer_id(library.to_bytes()) == key.public


PEER = peer_id(KEY.public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        PEER + " ",
        PEER + "\n",
        " " + PEER,
        "1" + PEER,
        PEER[:-1],
        PEER.replace("1", "l", 1),
        PEER + "é",
        "é",
        "Qm" + "a" * 44,
        "1" * 38,
        "z" * 64,
        "z" * 1_000_000,
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
    ],
)
def test_what_is_no_peer_id_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        key_of_peer_id(text)


@settings(derandomize=True, max_examples=300)
@given(st.text(max_size=70))
def test_no_text_is_a_peer_id_but_the_one_spelling(text: str) -> None:
    try:
        key = key_of_peer_id(text)
    except ValueError:
        return
    assert peer_id(key) == text


@pytest.mark.parametrize(
    "raw", [b"", bytes(38), b"\x12\x20" + bytes(32), b"\x00\x24\x08\x02\x12\x20" + bytes(32), bytes(10**6)]
)
def test_bytes_of_other_peer_ids_are_none(raw: bytes) -> None:
    assert key_of_raw_peer_id(raw) is None


# --- files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("passphrase", [None, "correct horse", "", "ß" * 50, "\udcff"])
def test_a_key_file_reads_back_and_is_ours_alone(tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        write_key(path, KEY, passphrase)
    finally:
        os.umask(old)
    assert read_key(path, passphrase) == KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (KEY.seed.hex().encode() in path.read_bytes()) == (passphrase is None)
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "key", KEY)
    with pytest.raises(LocalError, match="is there already"):
        write_key(tmp_path / "key", Key.fresh())
    assert read_key(tmp_path / "key") == KEY


def test_a_key_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be written"):
        write_key(tmp_path / "missing" / "key", KEY)


def test_two_encrypted_files_of_one_key_differ(tmp_path: Path) -> None:
    for name in "ab":
        write_key(tmp_path / name, KEY, "p")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_passphrase_must_be_given_and_right(tmp_path: Path) -> None:
    write_key(tmp_path / "key", KEY, "right")
    for given_, says in ((None, "is encrypted"), ("wrong", "does not open"), ("", "does not open")):
        with pytest.raises(LocalError, match=says):
            read_key(tmp_path / "key", given_)
    write_key(tmp_path / "open", KEY)
    assert read_key(tmp_path / "open", "not needed") == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o620, 0o666, 0o700 | 0o001])
def test_a_key_others_could_read_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(LocalError, match="can be read by others") as caught:
        read_key(path)
    assert "chmod 600" in caught.value.next_step


def test_no_key_yet_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="has no key yet") as caught:
        read_key(tmp_path / "key")
    assert "nexapod init" in caught.value.next_step
    (tmp_path / "folder").mkdir()
    with pytest.raises(LocalError, match="cannot be read"):
        read_key(tmp_path / "folder")


SEALED = "00" * 72
DAMAGED = {
    "empty": "",
    "another file": "hello\n",
    "cut off": "nexapod-key-1\nplain\n",
    "no end": f"nexapod-key-1\nplain\n{'11' * 32}",
    "seed too short": f"nexapod-key-1\nplain\n{'11' * 31}\n",
    "seed too long": f"nexapod-key-1\nplain\n{'11' * 33}\n",
    "not hexadecimal": f"nexapod-key-1\nplain\n{'zz' * 32}\n",
    "another version": f"nexapod-key-2\nplain\n{'11' * 32}\n",
    "another way": f"nexapod-key-1\nrot13\n{'11' * 32}\n",
    "a line more": f"nexapod-key-1\nplain\n{'11' * 32}\n\n",
    "salt too short": f"nexapod-key-1\nargon2id-secretbox\n{'00' * 15}\n{SEALED}\n",
    "box too short": f"nexapod-key-1\nargon2id-secretbox\n{'00' * 16}\n{'00' * 20}\n",
    "no box": f"nexapod-key-1\nargon2id-secretbox\n{'00' * 16}\n\n",
    "not text": "nexapod-key-1\nplain\n\udcff\udcff\n",
    "huge": "nexapod-key-1\nplain\n" + "1" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_key_file_is_called_damaged_and_not_a_wrong_passphrase(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(LocalError, match="is not a NEXAPod key file"):
        read_key(path, "p")


def test_any_changed_byte_of_a_key_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    write_key(tmp_path / "key", KEY, "p")
    good = (tmp_path / "key").read_bytes()
    for at in range(0, len(good), 5):
        path = tmp_path / f"key{at}"
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x01]) + good[at + 1 :])
        path.chmod(0o600)
        with pytest.raises(LocalError):
            read_key(path, "p")
