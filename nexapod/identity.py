"""Who a node is: an Ed25519 key, its libp2p PeerId, and the files that keep it.

Knows keys and signatures (libsodium through PyNaCl is the one verifier of everything in the ledger). Must never know
what is signed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import base58
from nacl import bindings, pwhash, secret, utils
from nacl.exceptions import BadSignatureError, CryptoError

from nexapod.errors import LocalError
from nexapod.hashing import Tag, tagged

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# An Ed25519 PeerId is the identity multihash (0x00, length 0x24) of the protobuf {Type: Ed25519 (1), Data: key}.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_FILE_MAGIC = b"nexapod-key-1\n"


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
    return base58.b58encode(_PEER_ID_PREFIX + public).decode()


def key_of_peer_id(text: str) -> bytes:
    """The Ed25519 public key inside a PeerId.

    Raises:
        ValueError: not base58, or not an Ed25519 identity PeerId.
    """
    if len(text) > 64:
        raise ValueError("too long for an Ed25519 PeerId")
    raw = base58.b58decode(text)
    if len(raw) != len(_PEER_ID_PREFIX) + KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise ValueError("not an Ed25519 PeerId")
    return raw[len(_PEER_ID_PREFIX) :]


def write_key(path: Path, key: Key, passphrase: str | None = None) -> None:
    """Write the key to a new file of mode 0600, encrypted when a passphrase is given (argon2id, secretbox).

    Raises:
        LocalError: the file is there already; a key is never overwritten.
    """
    if passphrase is None:
        content = _FILE_MAGIC + b"plain\n" + key.seed.hex().encode() + b"\n"
    else:
        salt = utils.random(pwhash.argon2id.SALTBYTES)
        sealed = bytes(secret.SecretBox(_stretch(passphrase, salt)).encrypt(key.seed))
        content = _FILE_MAGIC + b"argon2id-secretbox\n" + salt.hex().encode() + b"\n" + sealed.hex().encode() + b"\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LocalError(f"{path} is there already", "a key is never overwritten", "choose another --home") from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path, passphrase: str | None = None) -> Key:
    """Read a key file.

    Raises:
        LocalError: missing, readable by others, not a key file, or the passphrase is missing or wrong.
    """
    try:
        mode = path.stat().st_mode & 0o777
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise LocalError("this node has no key yet", f"{path} is missing", "run: nexapod init") from None
    if mode & 0o077:
        raise LocalError(f"{path} can be read by others", f"mode {mode:o}", f"run: chmod 600 {path}")
    try:
        match lines:
            case [magic, b"plain", seed, b""] if magic + b"\n" == _FILE_MAGIC:
                return Key.from_seed(bytes.fromhex(seed.decode()))
            case [magic, b"argon2id-secretbox", salt, sealed, b""] if magic + b"\n" == _FILE_MAGIC:
                if passphrase is None:
                    raise LocalError(f"{path} is encrypted", "no passphrase", "set NEXAPOD_PASSPHRASE")
                box = secret.SecretBox(_stretch(passphrase, bytes.fromhex(salt.decode())))
                return Key.from_seed(bytes(box.decrypt(bytes.fromhex(sealed.decode()))))
    except CryptoError:
        raise LocalError(f"{path} does not open", "the passphrase is wrong", "try again") from None
    except ValueError:
        pass
    raise LocalError(f"{path} is not a NEXAPod key file", "its content is damaged", "restore it from a backup")


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return pwhash.argon2id.kdf(
        secret.SecretBox.KEY_SIZE,
        passphrase.encode(),
        salt,
        opslimit=pwhash.argon2id.OPSLIMIT_MODERATE,
        memlimit=pwhash.argon2id.MEMLIMIT_MODERATE,
    )
