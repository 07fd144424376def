"""How much each author may say: token buckets in a bounded table.

Knows keys, counts and seconds handed to it. Must never know what was said.
"""

from collections import OrderedDict
from dataclasses import dataclass

BATCHES_PER_S = 25.0  # a node coalesces to five batches a second on each of four topics
BATCHES_BURST = 200.0  # a replay after a reconnect comes at once
BYTES_PER_S = 256 * 1024.0
BYTES_BURST = 4 * 1024 * 1024.0
AUTHORS_MAX = 4096  # the author silent for longest is forgotten and starts over with a full bucket


@dataclass(slots=True)
class _Bucket:
    batches: float
    size: float
    at: float


class Authors:
    """Decides whether one more batch of an author passes."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, author: bytes, size: int, now: float) -> bool:
        """Whether a batch of `size` bytes passes; if so it is paid for."""
        bucket = self._buckets.pop(author, None) or _Bucket(BATCHES_BURST, BYTES_BURST, now)
        self._buckets[author] = bucket  # newest last
        if len(self._buckets) > AUTHORS_MAX:
            self._buckets.popitem(last=False)
        elapsed = max(0.0, now - bucket.at)
        bucket.at = now
        bucket.batches = min(BATCHES_BURST, bucket.batches + elapsed * BATCHES_PER_S)
        bucket.size = min(BYTES_BURST, bucket.size + elapsed * BYTES_PER_S)
        if bucket.batches < 1 or bucket.size < size:
            return False
        bucket.batches -= 1
        bucket.size -= size
        return True
