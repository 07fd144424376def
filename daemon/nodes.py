"""Who is who: which feed belongs to which connection, what each node advertised, where it can be reached.

Knows adverts and genesis events that were checked. Must never know jobs. Everything kept here is bounded and can be
learned again.
"""

from collections import OrderedDict
from collections.abc import Callable

from dht.advert import open_advert
from nexapod.errors import PeerError, Unavailable
from nexapod.events import check_note, open_event, open_note
from nexapod.hashing import Tag
from nexapod.identity import peer_id
from nexapod.limits import ADVERTS_MAX, CLAIM_BYTES_MAX, EVENT_BYTES_MAX, FEEDS_MAX
from nexapod.messages import Advert, Assignment, Claim, Genesis


class Nodes:
    """The nodes this one has heard of. `now_ms` reads a monotonic clock, for the age of adverts."""

    def __init__(self, netid: bytes, now_ms: Callable[[], int]) -> None:
        self.netid, self._now_ms = netid, now_ms
        self._feed_of: OrderedDict[bytes, bytes] = OrderedDict()  # FEEDS_MAX; the oldest is forgotten
        self._key_of: dict[bytes, bytes] = {}
        self._adverts: OrderedDict[bytes, tuple[Advert, bytes, int]] = OrderedDict()  # by key; ADVERTS_MAX, oldest goes

    def introduce(self, genesis_raw: bytes, key: bytes) -> bytes:
        """Take the genesis event a peer shows on a connection proven to be `key`'s; returns its feed.

        Raises:
            PeerError: not a genesis of this network, or not that key's.
        """
        genesis = open_event(genesis_raw, self.netid)
        if not isinstance(genesis.data, Genesis) or genesis.data.key != key or not genesis.signed_by(key):
            raise PeerError("a peer showed a genesis that is not its own", section="streams: hello", cost=100)
        self.remember(key, genesis.feed)
        return genesis.feed

    def remember(self, key: bytes, feed: bytes) -> None:
        """A checked genesis binds this key to this feed."""
        if key in self._feed_of:
            self._feed_of.move_to_end(key)
        self._feed_of[key] = feed
        self._key_of[feed] = key
        if len(self._feed_of) > FEEDS_MAX:
            old_key, old_feed = self._feed_of.popitem(last=False)
            if self._key_of.get(old_feed) == old_key:
                del self._key_of[old_feed]

    def feed_of(self, key: bytes) -> bytes | None:
        return self._feed_of.get(key)

    def key_of(self, feed: bytes) -> bytes | None:
        return self._key_of.get(feed)

    # --- signed notes ----------------------------------------------------------------------------------------------
    def open_claim(self, raw: bytes) -> Claim:
        """A claim signed by the node of the feed it names.

        Raises:
            PeerError: not a claim, or not signed by that node. Unavailable: that node has not introduced itself here.
        """
        claim, note = open_note(raw, Claim, Tag.CLAIM, self.netid, size_max=CLAIM_BYTES_MAX)
        check_note(note, self._known_key(claim.feed))
        return claim

    def open_assignment(self, raw: bytes) -> tuple[Assignment, bytes]:
        """An assignment signed by the owner it names, and the digest that was signed.

        Raises:
            PeerError: not an assignment, or not signed by its owner. Unavailable: the owner is not known here.
        """
        assignment, note = open_note(raw, Assignment, Tag.ASSIGNMENT, self.netid, size_max=EVENT_BYTES_MAX)
        check_note(note, self._known_key(assignment.owner))
        return assignment, note.digest

    def _known_key(self, feed: bytes) -> bytes:
        key = self._key_of.get(feed)
        if key is None:
            raise Unavailable(f"the node of feed {feed.hex()[:12]} is not known here")
        return key

    # --- adverts ---------------------------------------------------------------------------------------------------
    def learn_advert(self, raw: bytes, by: bytes | None = None) -> Advert | None:
        """Keep an advert if it is sound and newer than the one known; returns it when it was news.

        Raises:
            PeerError: not a signed advert of this network, or not the one of `by`.
        """
        advert = open_advert(raw, self.netid)
        if by is not None and advert.key != by:
            raise PeerError("a peer introduced itself with another's advert", section="streams: hello", cost=10)
        known = self._adverts.get(advert.key)
        if known is not None and known[0].seq >= advert.seq:
            return None
        self._adverts[advert.key] = (advert, raw, self._now_ms())
        self._adverts.move_to_end(advert.key)
        if len(self._adverts) > ADVERTS_MAX:
            self._adverts.popitem(last=False)
        return advert

    def adverts(self) -> list[Advert]:
        """Every advert that is still valid by this node's clock."""
        now = self._now_ms()
        return [advert for advert, _, heard in self._adverts.values() if heard + advert.valid_ms > now]

    def advert_of(self, key: bytes) -> Advert | None:
        known = self._adverts.get(key)
        return known[0] if known else None

    def heard_ms_ago(self, key: bytes) -> int | None:
        known = self._adverts.get(key)
        return self._now_ms() - known[2] if known else None

    def name_of(self, feed: bytes) -> str:
        """What the node of a feed calls itself, empty when that is not known."""
        key = self._key_of.get(feed)
        advert = self.advert_of(key) if key else None
        return advert.name if advert else ""

    def peer_of(self, feed: bytes) -> str:
        """The PeerId of a feed's node, empty when its key is not known."""
        key = self._key_of.get(feed)
        return peer_id(key) if key else ""
