"""From a job file to an offer: everything it names is found and pinned first, or nothing is published.

Knows what a job needs before it can be offered. Must never know HTTP or the command line. What is missing is told all
at once: every image, every input, every requirement no node meets.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import trio

from daemon.core.matching import Reason, unmet_requirements
from daemon.core.step import Published
from daemon.errands import Errands
from daemon.loop import Loop
from daemon.neighbours import Neighbours
from daemon.nodes import Nodes
from daemon.transfer import DISK_THREADS, Transfer
from dht.advert import labels_for
from dht.service import Directory
from nexapod.encoding import encode
from nexapod.errors import Exit, LocalError, PeerError, Unavailable
from nexapod.job import Descriptor, Resolved, ResolvedInput, descriptor_hash, price_micro, resolve, unsupported
from nexapod.job_faults import DescriptorFaults, Fault, shown
from nexapod.job_file import local_path
from runtime.service import Runner

LOOK_S = 5.0  # looking for nodes before a job is refused because nobody could run it: this one may have just started
LOOK_AGAIN_S = 0.5
SPREAD_S = 10.0  # waiting for peers to hold the blobs; after that the offer stands and spreading goes on


@dataclass(frozen=True)
class Receipt:
    """What came of publishing. `offer` is None in a dry run, and `unmet` what no node meets; `holders` peers keep what
    the job needs.
    """

    resolved: Resolved
    offer: bytes | None
    holders: int = 0
    unmet: tuple[Reason, ...] = ()

    @property
    def price(self) -> int:
        """Micro-credits of one task; nothing for what is not verified."""
        return price_micro(self.resolved) if self.resolved.quorum > 1 else 0

    @property
    def lock(self) -> int:
        """Micro-credits the offer sets aside."""
        return self.price * self.resolved.tasks * self.resolved.executions_max


class Publisher:
    """Publishes jobs of this node's owner."""

    def __init__(
        self, loop: Loop, errands: Errands, transfer: Transfer, runner: Runner, nodes: Nodes, neighbours: Neighbours,
        directory: Directory,
    ) -> None:  # fmt: skip
        self._loop, self._errands, self._transfer, self._runner = loop, errands, transfer, runner
        self._nodes, self._neighbours, self._directory = nodes, neighbours, directory

    async def publish(self, descriptor: Descriptor, base: Path, own_key: bytes, *, dry_run: bool) -> Receipt:
        """Pin, store and offer a job whose local inputs lie below `base`. A dry run offers nothing.

        Raises:
            DescriptorFaults: with exit code 7 and a line for every missing image, input and requirement.
            LocalError: an input is not what the file pins, or there is no room for it.
        """
        faults = unsupported(descriptor)
        paths, lost = await trio.to_thread.run_sync(_find_inputs, descriptor, base, limiter=DISK_THREADS)
        image, why = await self._image(descriptor)
        faults += lost + why
        # Nobody is looked for to run what is refused anyway.
        unmet = await self._unmet(descriptor, own_key, LOOK_S if not faults else 0.0)
        if not dry_run:
            faults += [Fault("requirements", code, reason) for code, reason in unmet]
        if faults or image is None:
            raise DescriptorFaults(
                faults,
                subject=f"job {descriptor.job_id} cannot run here",
                remedy="provide what is missing, then publish again; nexapod node list shows what nodes lend",
                exit_code=Exit.REFUSED,
            )
        inputs = [await self._keep(path, file) for path, file in paths.items()]
        resolved = resolve(descriptor, image, inputs)
        if dry_run:
            return Receipt(resolved, None, unmet=unmet)
        digest = await self._transfer.put(encode(resolved))
        assert digest == descriptor_hash(resolved), "a descriptor is named by the hash of its blob"
        step = await self._loop.ask(Published(resolved, digest, os.urandom(32)))
        assert step.offer is not None, "publishing leads to an offer"
        return Receipt(resolved, step.offer, await self._holders(step.offer))

    async def _image(self, descriptor: Descriptor) -> tuple[bytes | None, list[Fault]]:
        try:
            digest = await self._runner.image_digest(descriptor.engine, descriptor.image)
        except Unavailable as error:
            return None, [Fault("image", shown(descriptor.image), f"{error} (see: nexapod doctor)")]
        if digest is None:
            reason = "this node's engine does not hold this image, so its digest cannot be pinned: pull or load it here"
            return None, [Fault("image", shown(descriptor.image), reason)]
        return digest, []

    async def _unmet(self, descriptor: Descriptor, own_key: bytes, patience_s: float) -> tuple[Reason, ...]:
        """What no node meets, by those known now and those the DHT and the neighbours tell of meanwhile."""
        with trio.move_on_after(patience_s):
            while self._unmet_by_known(descriptor, own_key):
                for raw in await self._directory.find(labels_for(descriptor.engine, descriptor.needs.ram_bytes)):
                    try:
                        self._neighbours.learn(raw)
                    except PeerError:
                        continue
                await trio.sleep(LOOK_AGAIN_S)
        return self._unmet_by_known(descriptor, own_key)

    def _unmet_by_known(self, descriptor: Descriptor, own_key: bytes) -> tuple[Reason, ...]:
        # This node's own work would earn nothing and prove nothing, so it does not count.
        return unmet_requirements(descriptor, [advert for advert in self._nodes.adverts() if advert.key != own_key])

    async def _keep(self, path: str, file: Path) -> ResolvedInput:
        try:
            sha256, size = await trio.to_thread.run_sync(self._transfer.blobs.put_file, file, limiter=DISK_THREADS)
        except OSError as error:
            what = f"input {path} cannot be read"
            raise LocalError(what, error.strerror or "", "check the file", Exit.REFUSED) from None
        return ResolvedInput(path, sha256, size)

    async def _holders(self, offer: bytes) -> int:
        """Wait until peers hold the blobs of a new offer; how many do."""
        spreading = self._errands.spreading(offer)
        with trio.move_on_after(SPREAD_S):
            await spreading.done.wait()
        return spreading.holders


def _find_inputs(descriptor: Descriptor, base: Path) -> tuple[dict[str, Path], list[Fault]]:
    """Local inputs by their path below /in, and a fault for each that is not there."""
    found: dict[str, Path] = {}
    faults: list[Fault] = []
    for source in descriptor.sources:
        if not source.uri.startswith("file:"):
            continue  # said by `unsupported`
        try:
            found[source.path] = local_path(base, source.uri)
        except LocalError as error:
            faults.append(Fault("inputs", shown(source.uri), f"{error.why}; {error.next_step}"))
        except (OSError, RuntimeError) as error:  # no access, a name that is too long, links in a circle
            faults.append(Fault("inputs", shown(source.uri), f"cannot be reached: {shown(str(error))}"))
    return found, faults
