"""When gossip messages go out together, and how a batch looks on the wire.

Knows sizes and milliseconds handed to it. Must never know a topic's meaning, a clock or a network.
"""

from nexapod.encoding import NotCanonical, decode, encode
from nexapod.limits import EVENT_BYTES_MAX, GOSSIP_BYTES_MAX

GATHER_S = 0.2  # after a batch went out, the next messages gather this long
MESSAGES_MAX = 1024  # messages in one batch
_HEAD_BYTES = 3  # array header of up to 1024 elements
_ITEM_HEAD_BYTES = 3  # header of a byte string of up to 16 KiB
MESSAGE_BYTES_MAX = EVENT_BYTES_MAX


class Coalescer:
    """Batches of one topic: the first message goes at once, later ones gather for GATHER_S or until a batch is full."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = _HEAD_BYTES
        self._gather_until = float("-inf")

    @property
    def due(self) -> float | None:
        """When what waits must go out; None when nothing waits."""
        return self._gather_until if self._waiting else None

    def add(self, message: bytes, now: float) -> list[bytes]:
        """Take one message; returns the encoded batches that go out now (none, one, or two)."""
        assert 0 < len(message) <= MESSAGE_BYTES_MAX, f"gossip message of {len(message)} bytes"
        out = []
        if self._size + _ITEM_HEAD_BYTES + len(message) > GOSSIP_BYTES_MAX or len(self._waiting) == MESSAGES_MAX:
            out.append(self._take(now))
        self._waiting.append(message)
        self._size += _ITEM_HEAD_BYTES + len(message)
        if now >= self._gather_until:
            out.append(self._take(now))
        return out

    def flush(self, now: float) -> list[bytes]:
        """The batch whose time has come, if any."""
        return [self._take(now)] if self._waiting and now >= self._gather_until else []

    def _take(self, now: float) -> bytes:
        batch, self._waiting, self._size = encode_batch(self._waiting), [], _HEAD_BYTES
        self._gather_until = now + GATHER_S
        return batch


def encode_batch(messages: list[bytes]) -> bytes:
    """Canonical array of byte strings, in order."""
    raw = encode(messages)
    assert len(raw) <= GOSSIP_BYTES_MAX, f"batch of {len(raw)} bytes"
    return raw


def decode_batch(raw: bytes) -> list[bytes]:
    """The messages of a batch.

    Raises:
        NotCanonical: not a canonical array of 1 to MESSAGES_MAX byte strings of 1 to MESSAGE_BYTES_MAX bytes each.
    """
    messages = decode(raw, list[bytes], size_max=GOSSIP_BYTES_MAX)
    if not 0 < len(messages) <= MESSAGES_MAX:
        raise NotCanonical(f"batch of {len(messages)} messages")
    if not all(0 < len(message) <= MESSAGE_BYTES_MAX for message in messages):
        raise NotCanonical("a message is empty or too long")
    return messages
