"""The genesis manifest of a network: who witnesses, who anchors, whose credit a community recognises.

Knows the manifest's shape and rules; its hash is the network's id, so it can never change. Must never know where it
is kept.
"""

from enum import IntFlag
from typing import Annotated

from msgspec import Meta, Raw

from nexapod.encoding import NotCanonical, Wire, check_text, decode, encode
from nexapod.hashing import Tag, tagged
from nexapod.limits import MANIFEST_BYTES_MAX
from nexapod.messages import VERSION, Body, Count, Genesis, Hash, Kind, Name, Note, PublicKey

MEMBERS_MAX = 256
WITNESSES_MAX = 32  # every certified event carries a threshold of their acknowledgements


class Role(IntFlag):
    """What a member is trusted with."""

    WITNESS = 1  # acknowledges feed heads
    ANCHOR = 2  # counts as established from the first day


class Member(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A node named at the beginning, and the operator who answers for it.

    `next_key_digest` completes the member's genesis event, so its feed id is known before it ever speaks.
    """

    key: PublicKey
    next_key_digest: Hash
    name: Name
    roles: Annotated[int, Meta(ge=0, le=3)]
    operator: Name


class Manifest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything two nodes must agree on before they speak. `threshold` of the witnesses certify; 0 without witnesses.

    `issuers`: keys of members whose credit counts on the community's boards. `note` is free text that also makes two
    networks of the same name and members differ.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    note: Note
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
    threshold: Count
    issuers: Annotated[tuple[PublicKey, ...], Meta(max_length=MEMBERS_MAX)]

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: members or issuers unsorted or repeated, or a threshold the witnesses cannot reach.
        """
        keys = [member.key for member in self.members]
        if keys != sorted(set(keys)) or list(self.issuers) != sorted(set(self.issuers)):
            raise ValueError("members and issuers are sorted by key, each once")
        if not set(self.issuers) <= set(keys):
            raise ValueError("an issuer is not a member")
        witnesses = len(self.witnesses)
        # More than half, so that two disjoint sets of witnesses can never certify two histories.
        if witnesses > WITNESSES_MAX or not (
            witnesses // 2 < self.threshold <= witnesses or witnesses == self.threshold == 0
        ):
            raise ValueError(f"threshold {self.threshold} does not fit {witnesses} witnesses")
        for text in (self.note, *(part for member in self.members for part in (member.name, member.operator))):
            check_text(text)

    @property
    def witnesses(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.roles & Role.WITNESS)

    @property
    def anchors(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.roles & Role.ANCHOR)

    @property
    def operators(self) -> frozenset[str]:
        return frozenset(member.operator for member in self.members)


def netid(manifest: Manifest) -> bytes:
    """The network's id."""
    return netid_of_bytes(encode(manifest))


def netid_of_bytes(raw: bytes) -> bytes:
    """The network id of the exact bytes of a manifest."""
    return tagged(Tag.MANIFEST, raw)


def decode_manifest(raw: bytes) -> Manifest:
    """
    Raises:
        NotCanonical: not the one encoding of a sound manifest.
    """
    return decode(raw, Manifest, size_max=MANIFEST_BYTES_MAX)


def genesis_manifest(name: str, key: bytes, next_key_digest: bytes, *, node_name: str = "", note: str = "") -> Manifest:
    """A network of one: this node is its only witness, anchor and issuer, which is right for a lab and a first day.

    Raises:
        NotCanonical: the name or a text is not allowed.
    """
    operator = node_name or key.hex()[:12]
    member = Member(key, next_key_digest, node_name, int(Role.WITNESS | Role.ANCHOR), operator)
    try:
        # Through the decoder, because constructing a value checks no bounds.
        return decode_manifest(encode(Manifest(1, name, note, (member,), 1, (key,))))
    except ValueError as error:
        raise NotCanonical(str(error)) from None


def feed_of_member(manifest: Manifest, member: Member) -> bytes:
    """The feed id that follows from a member's keys, before any of its events is seen."""
    genesis = Genesis(member.key, member.next_key_digest)
    body = Body(VERSION, b"", 0, b"", Kind.GENESIS, 0, Raw(encode(genesis)))
    return tagged(Tag.EVENT, netid(manifest), encode(body))


def witness_feeds(manifest: Manifest) -> frozenset[bytes]:
    """Feed ids of the witnesses."""
    return frozenset(feed_of_member(manifest, member) for member in manifest.witnesses)


def member_names(manifest: Manifest) -> dict[bytes, str]:
    """What the manifest calls its members, by feed id."""
    return {feed_of_member(manifest, member): member.name or member.operator for member in manifest.members}
