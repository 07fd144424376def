"""The parts of a running node, for whoever has to look at all of them.

Knows that they exist together. Must never do anything with them: daemon/app.py makes them, daemon/local shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bootstrap.setup import Node
from daemon.connections import Connections
from daemon.core.node import NodeCore
from daemon.errands import Errands
from daemon.host import Mesh
from daemon.lending import Lending
from daemon.loop import Loop
from daemon.neighbours import Neighbours
from daemon.nodes import Nodes
from daemon.publishing import Publisher
from daemon.transfer import Transfer
from dht.service import Directory
from ledger.service import Ledger
from nexapod.home import Home


@dataclass(frozen=True)
class Parts:
    """One node of one network, standing."""

    home: Home
    node: Node
    mesh: Mesh
    connections: Connections
    nodes: Nodes
    neighbours: Neighbours
    ledger: Ledger
    loop: Loop
    core: NodeCore
    errands: Errands
    transfer: Transfer
    lending: Lending
    publisher: Publisher
    directory: Directory
    member_names: Mapping[bytes, str]

    def name_of(self, feed: bytes) -> str:
        """What people call the node of a feed: its own word, else the network's manifest, else the feed's beginning."""
        if feed == self.node.feed and self.lending.config.name:
            return self.lending.config.name
        return self.nodes.name_of(feed) or self.member_names.get(feed) or feed.hex()[:12]
