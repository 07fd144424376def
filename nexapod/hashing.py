"""The only list of domain tags, and the one way to hash or sign under them.

A hash made for one purpose can never be taken for another: every tag is part of the hashed bytes. Knows tags and
bytes. Must never know what the bytes mean.
"""

import hashlib
from enum import StrEnum

HASH_BYTES = 32


class Tag(StrEnum):
    """Domain of a hash or signature; the number is the version of what is hashed."""

    EVENT = "nexapod/ev/1"
    MANIFEST = "nexapod/manifest/1"
    COMMIT = "nexapod/commit/1"
    NONCE = "nexapod/nonce/1"
    NEXT_KEY = "nexapod/nextkey/1"
    SEED_COMMITMENT = "nexapod/seedcommit/1"
    DRAW = "nexapod/draw/1"
    TASK_SEED = "nexapod/taskseed/1"
    ADVERT = "nexapod/advert/1"
    RECORD = "nexapod/record/1"
    BUCKET = "nexapod/bucket/1"
    HOLDERS = "nexapod/holders/1"
    CLAIM = "nexapod/claim/1"
    ASSIGNMENT = "nexapod/assign/1"
    BOOTSTRAP = "nexapod/bootstrap/1"
    FRONTIER = "nexapod/frontier/1"
    STATE = "nexapod/state/1"


def tagged(tag: Tag, *parts: bytes) -> bytes:
    """SHA-256 over tag, a zero byte and the parts in order.

    The parts are joined as they are: all but the last must have a fixed length, or be one canonical encoding.
    """
    digest = hashlib.sha256(tag.encode() + b"\0")
    for part in parts:
        digest.update(part)
    return digest.digest()


def blob_id(content: bytes) -> bytes:
    """Plain SHA-256 of the content, so that any tool can check a blob."""
    return hashlib.sha256(content).digest()


def merkle_root(leaves: list[bytes]) -> bytes:
    """Root of a Merkle tree with RFC 6962 hashing (leaf prefix 0, node prefix 1, left-full split).

    Source: RFC 6962 section 2.1. The root of no leaves is the hash of nothing.
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    # Iterative: keep the roots of complete subtrees, merge equals as they meet, fold the rest from the right.
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        size, root = 1, hashlib.sha256(b"\0" + leaf).digest()
        while stack and stack[-1][0] == size:
            left = stack.pop()[1]
            size, root = size * 2, hashlib.sha256(b"\1" + left + root).digest()
        stack.append((size, root))
    root = stack.pop()[1]
    while stack:
        root = hashlib.sha256(b"\1" + stack.pop()[1] + root).digest()
    return root
