"""Who a node is: an Ed25519 key, its libp2p PeerId, and the files that keep it.

Knows keys and signatures (libsodium through PyNaCl is the one verifier of everything in the ledger). Must never know
what is signed.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import base58
from nacl import bindings, pwhash, secret, utils
from nacl.exceptions import BadSignatureError, CryptoError

from nexapod import disk
from nexapod.errors import LocalError
from nexapod.hashing import Tag, tagged

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# An Ed25519 PeerId is the identity multihash (0x00, length 0x24) of the protobuf {Type: Ed25519 (1), Data: key}.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_FILE_MAGIC = b"nexapod-key-1\n"
_FILE_BYTES_MAX = 4096
_OPS, _MEMORY = pwhash.argon2id.OPSLIMIT_MODERATE, pwhash.argon2id.MEMLIMIT_MODERATE  # a second, 256 MiB
_SEALED_BYTES = secret.SecretBox.NONCE_SIZE + secret.SecretBox.MACBYTES + KEY_BYTES


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A signing key made from a 32-byte seed."""

    seed: bytes
    public: bytes
    _secret: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> "Key":
        public, private = bindings.crypto_sign_seed_keypair(seed)
        return cls(seed, public, private)

    @classmethod
    def fresh(cls) -> "Key":
        return cls.from_seed(utils.random(KEY_BYTES))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (deterministic, RFC 8032)."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:  # never print the seed
        return f"Key({self.public.hex()[:12]})"


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts the signature (it refuses small-order keys and non-canonical scalars)."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def next_key_digest(public: bytes) -> bytes:
    """What a feed commits to before it rotates: the digest of the key that comes next."""
    return tagged(Tag.NEXT_KEY, public)


def peer_id(public: bytes) -> str:
    """The libp2p PeerId of an Ed25519 public key, in base58."""
    return str(base58.b58encode(_PEER_ID_PREFIX + public), "ascii")


def key_of_peer_id(text: str) -> bytes:
    """The Ed25519 public key inside a PeerId.

    Raises:
        ValueError: not base58 in its one spelling, or not an Ed25519 identity PeerId.
    """
    if len(text) > 64:
        raise ValueError("too long for an Ed25519 PeerId")
    key = key_of_raw_peer_id(bytes(base58.b58decode(text)))
    if key is None or peer_id(key) != text:  # the decoder forgives white space at the end
        raise ValueError("not an Ed25519 PeerId")
    return key


def key_of_raw_peer_id(raw: bytes) -> bytes | None:
    """The Ed25519 public key inside the bytes of a PeerId; None when they are anything else, however long."""
    if len(raw) != len(_PEER_ID_PREFIX) + KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        return None
    return raw[len(_PEER_ID_PREFIX) :]


# --- key files --------------------------------------------------------------------------------------------------------
def write_key(path: Path, key: Key, passphrase: str | None = None) -> None:
    """Write the key to a new file of mode 0600, encrypted when a passphrase is given (argon2id, secretbox).

    Raises:
        LocalError: the file is there already (a key is never overwritten), or it cannot be written.
    """
    if passphrase is None:
        content = _FILE_MAGIC + b"plain\n" + key.seed.hex().encode() + b"\n"
    else:
        salt = utils.random(pwhash.argon2id.SALTBYTES)
        sealed = bytes(secret.SecretBox(_stretch(passphrase, salt)).encrypt(key.seed))
        content = _FILE_MAGIC + b"argon2id-secretbox\n" + salt.hex().encode() + b"\n" + sealed.hex().encode() + b"\n"
    try:
        disk.write_new(path, content, 0o600)
    except FileExistsError:
        raise LocalError(f"{path} is there already", "a key is never overwritten", "choose another --home") from None
    except OSError as error:
        raise LocalError(f"{path} cannot be written", error.strerror or "", "choose another --home") from None


def read_key(path: Path, passphrase: str | None = None) -> Key:
    """Read a key file.

    Raises:
        LocalError: missing, readable by others, not a key file, or the passphrase is missing or wrong.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_FILE_BYTES_MAX)
    except FileNotFoundError:
        raise LocalError("this node has no key yet", f"{path} is missing", "run: nexapod init") from None
    except OSError as error:
        raise LocalError(f"{path} cannot be read", error.strerror or "", "is it your file?") from None
    if mode & 0o077:
        raise LocalError(f"{path} can be read by others", f"mode {mode:o}", f"run: chmod 600 {path}")
    match content.removeprefix(_FILE_MAGIC).split(b"\n") if content.startswith(_FILE_MAGIC) else ():
        case [b"plain", text, b""]:
            seed = _from_hex(text, KEY_BYTES)
        case [b"argon2id-secretbox", salt_text, sealed_text, b""]:
            salt, sealed = _from_hex(salt_text, pwhash.argon2id.SALTBYTES), _from_hex(sealed_text, _SEALED_BYTES)
            seed = _unseal(path, passphrase, salt, sealed) if salt and sealed else b""
        case _:
            seed = b""
    if not seed:
        raise LocalError(f"{path} is not a NEXAPod key file", "its content is damaged", "restore it from a backup")
    return Key.from_seed(seed)


def _from_hex(text: bytes, length: int) -> bytes:
    """The bytes when there are exactly so many of them, else empty."""
    try:
        raw = bytes.fromhex(text.decode())
    except ValueError:
        return b""
    return raw if len(raw) == length else b""


def _unseal(path: Path, passphrase: str | None, salt: bytes, sealed: bytes) -> bytes:
    if passphrase is None:
        raise LocalError(f"{path} is encrypted", "no passphrase", "set NEXAPOD_PASSPHRASE")
    try:
        return bytes(secret.SecretBox(_stretch(passphrase, salt)).decrypt(sealed))
    except CryptoError:
        why = "the passphrase is wrong, or the file is damaged"
        raise LocalError(f"{path} does not open", why, "try again, or restore it from a backup") from None


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return pwhash.argon2id.kdf(
        secret.SecretBox.KEY_SIZE,
        os.fsencode(passphrase),  # as it stood in the environment, also when that was not UTF-8
        salt,
        opslimit=_OPS,
        memlimit=_MEMORY,
    )
