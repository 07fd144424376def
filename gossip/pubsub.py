"""GossipSub, dressed for our use: signed messages of a few topics among keys.

Knows py-libp2p's pubsub and its traps: defaults that drop bursts, own messages that come back, validators that must
not raise, keys whose signatures cost more to check than to make. Must never know what a message says.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ValidationError
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator
from libp2p.tools.anyio_service import background_trio_service

from nexapod.errors import PeerError, Unavailable
from nexapod.identity import key_of_raw_peer_id
from nexapod.limits import GOSSIP_BYTES_MAX

PROTOCOL = "/meshsub/1.1.0"  # 1.2 adds a message per message
RPC_BYTES_MAX = 256 * 1024
DEGREE, DEGREE_LOW, DEGREE_HIGH = 4, 3, 8
HEARTBEAT_S = 1
PRUNE_BACK_OFF_S = 10

Admit: TypeAlias = Callable[[str, bytes, bytes, bytes], bool]
Deliver: TypeAlias = Callable[[str, bytes, bytes], None]
Charge: TypeAlias = Callable[[bytes, PeerError], None]  # takes the key of a neighbour and its breach; must not block
log = logging.getLogger("nexapod.gossip")


class _Ed25519Pubsub(Pubsub):  # type: ignore[misc]  # the library is untyped to us
    """Pubsub that looks at no message of an author without an Ed25519 key, and says who brought what is worth nothing.

    The library would check its signature first, and an RSA key can be made so that one check takes 30 ms of ours.
    `worthless(neighbour, message)` is called for each message no honest neighbour would have passed on or that was
    refused; None stands for one whose author is none or has not signed it.
    """

    def __init__(self, *args: Any, worthless: Callable[[Any, Any], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._worthless = worthless

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        if key_of_raw_peer_id(msg.from_id) is None:
            self._worthless(msg_forwarder, None)
            return
        await super().push_msg(msg_forwarder, msg)
        # The library drops a false signature without a word, before it looks at anything else.
        judged = self._is_msg_seen(msg) or self.validation_cache.get(self._msg_id_constructor(msg)) is not None
        if not judged and not signature_validator(msg):
            self._worthless(msg_forwarder, None)

    async def validate_msg(self, msg_forwarder: Any, msg: Any) -> None:
        try:
            await super().validate_msg(msg_forwarder, msg)
        except ValidationError:
            self._worthless(msg_forwarder, msg)
            raise


class Line:
    """Pubsub on one libp2p host; make it before the host listens, run it while the host runs."""

    def __init__(
        self,
        host: Any,
        topics: Sequence[str],
        admit: Admit,
        unsound: Callable[[bytes], str] = lambda data: "",
        charge: Charge = lambda neighbour, breach: None,
    ) -> None:
        """`admit(topic, author, neighbour, data)` decides before a message is passed on or read; it must not block.

        `author` is the key that signed the message, `neighbour` the PeerId it came from. `unsound(data)` says why no
        honest neighbour passes a message on, if so; then the one that did is charged.
        """
        self._own = key_of_raw_peer_id(host.get_id().to_bytes())
        self._topics, self._admit = tuple(topics), admit
        self._unsound, self._charge = unsound, charge
        self._router = GossipSub(
            protocols=[TProtocol(PROTOCOL)],
            degree=DEGREE,
            degree_low=DEGREE_LOW,
            degree_high=DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            prune_back_off=PRUNE_BACK_OFF_S,
            spam_protection_enabled=False,  # ten messages a second and forwarder, our own included
        )
        self._pubsub = _Ed25519Pubsub(
            host,
            self._router,
            strict_signing=True,
            max_inbound_rpc_size=RPC_BYTES_MAX,
            allowed_topics=frozenset(topics),
            worthless=self._on_worthless,
        )

    @asynccontextmanager
    async def running(self, deliver: Deliver) -> AsyncIterator[None]:
        """Run pubsub and hand every admitted message of others to `deliver(topic, author, data)`."""
        async with background_trio_service(self._pubsub), background_trio_service(self._router):
            await self._pubsub.wait_until_ready()
            async with trio.open_nursery() as nursery:
                for topic in self._topics:
                    self._pubsub.set_topic_validator(topic, self._validate, False)
                    subscription = await self._pubsub.subscribe(topic)
                    nursery.start_soon(self._listen, topic, subscription, deliver)
                yield
                nursery.cancel_scope.cancel()

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign and queue one message for the mesh of this topic.

        Raises:
            Unavailable: pubsub would not take it.
        """
        try:
            await self._pubsub.publish(topic, data)
        except Exception as error:
            raise Unavailable(f"gossip refused a message: {error}") from error

    def _validate(self, forwarder: Any, message: Any) -> bool:
        author = key_of_raw_peer_id(message.from_id)
        if author is None or len(message.topicIDs) != 1 or len(message.data) > GOSSIP_BYTES_MAX:
            return False
        return author == self._own or self._admit(message.topicIDs[0], author, forwarder.to_bytes(), message.data)

    def _on_worthless(self, forwarder: Any, message: Any) -> None:
        neighbour = key_of_raw_peer_id(forwarder.to_bytes())
        if neighbour is None or neighbour == self._own:
            return
        if message is None:
            self._charge(neighbour, PeerError("a gossip message nobody signed", section="gossip", cost=100))
        elif key_of_raw_peer_id(message.from_id) != self._own:
            why = "several topics" if len(message.topicIDs) != 1 else self._unsound(message.data)
            if why:  # else it was one too many, of an author whose limit the neighbour need not know
                self._charge(neighbour, PeerError(f"a gossip message with {why}", section="gossip", cost=10))

    async def _listen(self, topic: str, subscription: Any, deliver: Deliver) -> None:
        async for message in subscription:
            author = key_of_raw_peer_id(message.from_id)
            if author is not None and author != self._own:
                deliver(topic, author, message.data)
