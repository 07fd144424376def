"""Where everything lies in the one LevelDB database of a node.

Knows key prefixes and their order. Must never know LevelDB itself.

    prefix  key after it         value
    v       -                    format version
    n       -                    network id
    e       feed, seq            envelope bytes of an event
    i       event id             feed, seq
    o       subject, feed, seq   nothing: this event is about that offer or lock (see ledger/order.py)
    x       feed                 seq and envelope of the event that contradicts the one kept under `e`
    f       any bytes            a private fact of this node
"""

FORMAT = b"1"
VERSION_KEY = b"v"
NETWORK_KEY = b"n"
EVENT = b"e"
POSITION = b"i"
ABOUT = b"o"
FORK = b"x"
FACT = b"f"
ID_BYTES = 32
_SEQ_BYTES = 8


def event_key(feed: bytes, seq: int) -> bytes:
    """Key of the event at `seq` of `feed`; keys of one feed are in seq order."""
    return EVENT + place(feed, seq)


def place(feed: bytes, seq: int) -> bytes:
    """Feed and seq as one fixed-length string."""
    return feed + seq.to_bytes(_SEQ_BYTES, "big")


def split_place(raw: bytes) -> tuple[bytes, int]:
    """Feed and seq of `place`."""
    return raw[:-_SEQ_BYTES], int.from_bytes(raw[-_SEQ_BYTES:], "big")


def about_key(subject: bytes, feed: bytes, seq: int) -> bytes:
    """Key that says: the event at `seq` of `feed` is about `subject`."""
    return ABOUT + subject + place(feed, seq)


def after(prefix: bytes) -> bytes:
    """The first key behind all keys that begin with `prefix`, whose last byte must not be 255."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
