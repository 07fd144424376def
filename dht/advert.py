"""Signed adverts as DHT records: under which key, in which coarse buckets, valid or not, newer or not.

Knows the advert and the rules of our namespace. Must never know Kademlia, a clock, or whether a node is any good.
A record is a hint: it proves who says it lends what, and nothing more.
"""

from nexapod.errors import PeerError
from nexapod.events import check_note, open_note
from nexapod.hashing import Tag, tagged
from nexapod.limits import ADVERT_BYTES_MAX, ADVERT_VALID_MS
from nexapod.messages import Advert

NAMESPACE = "nexapod"
RENEW_S = 600.0  # an advert is put again this often, with a fresh seq: an equal record would not be renewed
TTL_S = ADVERT_VALID_MS / 1000  # what a finder may rely on without hearing more
LABELS_MAX = 10  # provider records a peer accepts in 10 s; the rest would vanish silently
_KEY_BYTES = 20  # the library refuses to look up keys beyond 50 characters: 9 for the namespace, 40 in hex
_MULTIHASH = b"\x12\x20"  # SHA-256, 32 bytes
_GIB = 2**30
_RAM_STEPS = 12  # 1 GiB to 2 TiB


def record_key(netid: bytes, key: bytes) -> str:
    """Where the advert of the node with this key is kept."""
    return f"/{NAMESPACE}/{tagged(Tag.RECORD, netid, key)[:_KEY_BYTES].hex()}"


def open_advert(raw: bytes, netid: bytes) -> Advert:
    """A signed advert, checked.

    Raises:
        PeerError: not canonical, too long, or not signed by the key it names.
    """
    advert, note = open_note(raw, Advert, Tag.ADVERT, netid, size_max=ADVERT_BYTES_MAX)
    check_note(note, advert.key)
    return advert


def fault(key: str, value: bytes, netid: bytes) -> str | None:
    """Why this value must not be stored under this record key; None when it may."""
    try:
        advert = open_advert(value, netid)
    except PeerError as error:
        return str(error)
    return None if record_key(netid, advert.key) == key else "the advert belongs under another key"


def newest(values: list[bytes], netid: bytes) -> int:
    """Position of the record with the highest seq; of equals the first. Invalid records never win."""
    return max(range(len(values)), key=lambda index: (_seq(values[index], netid), -index))


def _seq(raw: bytes, netid: bytes) -> int:
    try:
        return open_advert(raw, netid).seq
    except PeerError:
        return -1


# --- coarse buckets: "who can run this" before anything is published --------------------------------------------------
def labels_of(advert: Advert) -> tuple[str, ...]:
    """The buckets a node stands in: its engines, its accelerators, its memory in powers of two, its tier."""
    vendors = sorted({gpu.vendor.lower() for gpu in advert.profile.gpus})[:2]
    labels = [f"engine={engine}" for engine in advert.engines]
    labels += [f"gpu={vendor}" for vendor in vendors] + (["gpu=any"] if vendors else ["gpu=none"])
    labels += [f"ram={_ram_step(advert.profile.ram_bytes)}", f"tier={advert.tier}"]
    return tuple(labels[:LABELS_MAX])


def labels_for(engine: str, ram_bytes: int, gpu: str | None = None) -> tuple[str, ...]:
    """The buckets to ask, rarest first, for nodes with this engine, at least this memory and this GPU vendor or `any`.

    Any of them may hold a fitting node; the finder still checks each advert.
    """
    if gpu is not None:
        return (f"gpu={gpu.lower()}",)
    first = _ram_step(ram_bytes)
    return (*(f"ram={step}" for step in range(first, _RAM_STEPS)), f"engine={engine}")


def _ram_step(ram_bytes: int) -> int:
    return min(max(ram_bytes // _GIB, 1).bit_length() - 1, _RAM_STEPS - 1)


def bucket_key(netid: bytes, label: str) -> bytes:
    """Provider key of a bucket: a multihash, as Kademlia implementations expect."""
    return _MULTIHASH + tagged(Tag.BUCKET, netid, label.encode())


def blob_key(netid: bytes, sha256: bytes) -> bytes:
    """Provider key of a blob."""
    return _MULTIHASH + tagged(Tag.HOLDERS, netid, sha256)
