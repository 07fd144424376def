"""What the node's owner may tell it while it runs: join a network, pause, resume, read the settings again.

Knows whether the node stands yet. Must never know HTTP. Before the node belongs to a network there are no parts, and
joining is all that can be done.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from bootstrap import setup
from bootstrap.bootstrap_file import Bootstrap
from bootstrap.setup import Node
from daemon.core.step import CapacityChanged
from daemon.lending import GB
from daemon.local import node_documents
from daemon.loop import now
from daemon.parts import Parts
from nexapod.config import SETTINGS, Config
from nexapod.errors import Exit, LocalError
from nexapod.home import Home

log = logging.getLogger("nexapod.daemon")


class Desk:
    """Where the owner's wishes arrive. `parts` is None until the node stands."""

    def __init__(self, home: Home, config: Config, read_config: Callable[[], Config] | None = None) -> None:
        self._home, self._config = home, config
        self._read_config = read_config or (lambda: config)
        self.parts: Parts | None = None
        self.how_to_join = "run: nexapod bootstrap import FILE"
        self._started_s = time.monotonic()
        self._registered = trio.Event()

    # --- belonging to a network ------------------------------------------------------------------------------------
    async def node(self) -> Node:
        """The node of this home, once it belongs to a network.

        Raises:
            LocalError: no key, or a damaged file.
        """
        node = await trio.to_thread.run_sync(setup.load_node, self._home)
        if node.manifest is None:
            await self._registered.wait()
            node = await trio.to_thread.run_sync(setup.load_node, self._home)
        return node

    async def join(self, bootstrap: Bootstrap) -> Node:
        """Join the network of a bootstrap file, or learn its peers when this node belongs to it already.

        Raises:
            LocalError: the node belongs to another network.
        """
        node = await trio.to_thread.run_sync(partial(setup.join_network, self._home, bootstrap))
        if self.parts is not None:
            self.parts.neighbours.pin(bootstrap.peers)
        self._registered.set()
        return node

    async def found(self, network: str) -> Node:
        """Begin a network with this node as its witness.

        Raises:
            LocalError: the node belongs to one already, or the name is not allowed.
        """
        name = self._config.name
        node = await trio.to_thread.run_sync(partial(setup.found_network, self._home, network, node_name=name))
        self._registered.set()
        return node

    def status(self) -> dict[str, Any]:
        """How this node is doing, whether it stands or not."""
        if self.parts is not None:
            return node_documents.status(self.parts, self._started_s)
        why = [f"it belongs to no network; {self.how_to_join}"]
        if self._registered.is_set() or self._home.manifest_file.exists():
            why = ["it is still starting"]
        state = "unregistered" if not self._home.manifest_file.exists() else "starting"
        return {"state": state, "healthy": False, "why": why, "name": self._config.name, "addresses": [], "peers": 0}

    # --- lending ---------------------------------------------------------------------------------------------------
    async def pause(self, for_s: int | None) -> None:
        """Take no new work for so many seconds, or until resumed."""
        parts = self._standing()
        parts.lending.paused_until = math.inf if for_s is None else now().mono_ms / 1000 + for_s
        await self._lending_changed(parts)

    async def resume(self) -> None:
        """Take work again."""
        parts = self._standing()
        parts.lending.paused_until = 0.0
        await self._lending_changed(parts)

    async def reload(self) -> dict[str, list[str]]:
        """Read the settings again: which of them changed now, and which will at the next start.

        Raises:
            DescriptorFaults: some are wrong; the old ones stay in force.
        """
        parts, new = self._standing(), self._read_config()
        old = parts.lending.config
        changed = [key for key in SETTINGS if getattr(new, key) != getattr(old, key)]
        later = [key for key in changed if not SETTINGS[key].live]
        parts.lending.config = replace(new, **{key: getattr(old, key) for key in later})
        parts.transfer.blobs.quota_bytes = new.disk_gb * GB
        logging.getLogger("nexapod").setLevel(new.log_level.upper())
        await self._lending_changed(parts)
        now_changed = [key for key in changed if key not in later]
        log.info("settings read again: %s; at the next start: %s", now_changed or "none changed", later or "none")
        return {"changed": now_changed, "at_next_start": later}

    async def _lending_changed(self, parts: Parts) -> None:
        parts.lending.changed.set()
        await parts.loop.tell(CapacityChanged(parts.lending.capacity(now().mono_ms / 1000)))
        parts.neighbours.advert_changed()

    def _standing(self) -> Parts:
        if self.parts is None:
            raise LocalError("this node belongs to no network yet", "", self.how_to_join, Exit.REFUSED)
        return self.parts
