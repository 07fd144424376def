"""Docker, and whatever speaks its language, as an engine.

Knows the SDK and which exceptions it raises; the only file that does. Must never decide what is safe: that is
sandbox.py, nor what is a result: that is collector.py. Every SDK call runs in a thread.
"""

import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import docker
import msgspec
import trio
import urllib3
from docker.errors import DockerException, ImageNotFound, NotFound

from runtime import holder, images
from runtime.blobs import BlobStore, NoRoom
from runtime.collector import OutputsRefused, Selection, collect
from runtime.engine import EngineInfo, Report
from runtime.inputs import BadInput, stage
from runtime.outputs import result_root
from runtime.reference import NotAReference, parse_reference
from runtime.sandbox import (
    OUT,
    Mounted,
    Unfit,
    holder_container,
    labels_of,
    out_volume,
    task_container,
)
from runtime.sockets import candidates
from runtime.task import Broke, Finished, Outcome, Reason, RunState, TaskSpec

LOG_TAIL_BYTES = 64 * 1024
CALL_S = 60  # one call to an engine that answers at all
DISCARD_S = 60  # taking a box apart; what is left after that is reaped at the next start
CALLS_MAX = 8  # SDK calls at once; more wait, the engine is no faster with them
WAITS_MAX = 256  # threads that wait for a container to end; the runner's slots stay far below
_ARCHIVE_CHUNK = 1 << 20
_DETAIL_CHARS_MAX = 500

T = TypeVar("T")


class _Fault(Exception):
    """The engine, or the way to it, failed a task."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail[:_DETAIL_CHARS_MAX]


class _Box(msgspec.Struct, frozen=True):
    """The names of everything one run makes, chosen before any of it exists so that all of it can be removed."""

    token: str
    job: str
    holder: str
    volume: str
    inputs: Path


class DockerEngine:
    """Runs each task in its own container. `node` tells the containers of nodes on one host apart."""

    name = "docker"

    def __init__(self, *, node: str, scratch: Path, host: str | None = None) -> None:
        self._node, self._scratch, self._host = node, scratch, host
        self._api: Any = None
        self._lock = threading.Lock()  # of _api and _holder_image, both made once, in threads
        self._holder_image = ""
        self._architecture = ""
        self._active: set[str] = set()
        self._calls = trio.CapacityLimiter(CALLS_MAX)
        self._waits = trio.CapacityLimiter(WAITS_MAX)

    async def probe(self) -> EngineInfo:
        try:
            version = await self._call(self._version)
        except _Fault as fault:
            return EngineInfo(self.name, "", ready=False, why=fault.detail)
        if self._architecture not in holder.architectures():
            return EngineInfo(self.name, version, ready=False, why=f"{self._architecture} is not supported yet")
        return EngineInfo(self.name, version, ready=True)

    async def image_digest(self, reference: str) -> bytes | None:
        try:
            name = str(parse_reference(reference))
        except NotAReference:
            return None
        image = await self._call(self._inspect_image, name)
        return None if image is None else bytes.fromhex(image["Id"].removeprefix("sha256:"))

    async def has_image(self, digest: bytes) -> bool:
        try:
            return await self._call(self._inspect_image, f"sha256:{digest.hex()}") is not None
        except _Fault:
            return False

    async def pull(self, reference: str, digest: bytes) -> str:
        try:
            parsed = parse_reference(reference)
            await self._call(self._pull, parsed.name, f"sha256:{parsed.digest.hex()}" if parsed.digest else parsed.tag)
        except NotAReference as error:
            return str(error)
        except _Fault as fault:
            return fault.detail
        return "" if await self.has_image(digest) else "the name now stands for another image"

    async def export_image(self, digest: bytes, blobs: BlobStore) -> str:
        try:
            await self._call(self._export, digest, blobs)
        except (_Fault, images.NotAnImage, NoRoom) as error:
            return str(error)
        return ""

    async def import_image(self, digest: bytes, blobs: BlobStore) -> str:
        try:
            await self._call(self._import, digest, blobs)
        except (_Fault, images.NotAnImage) as error:
            return str(error)
        except KeyError:
            return "some of its blobs are not here"
        return "" if await self.has_image(digest) else "the engine knows the image by another digest"

    async def aclose(self) -> None:
        if self._api is not None:
            await self._call(self._api.close)
            self._api = None

    async def reap(self) -> int:
        try:
            return await self._call(self._reap)
        except _Fault:
            return 0

    async def run(self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report) -> Outcome:
        token = secrets.token_hex(8)
        name = f"nexapod-{token}"
        box = _Box(token, f"{name}-task", f"{name}-holder", f"{name}-out", self._scratch / name)
        self._active.add(token)
        try:
            return await self._run(spec, inputs, blobs, box, report)
        except _Fault as fault:
            return Broke(fault.reason, fault.detail)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(DISCARD_S):
                async with trio.open_nursery() as nursery:
                    for part in (box.job, box.holder):
                        nursery.start_soon(self._try, self._remove_container, part)
                await self._try(self._remove_rest, box)
            self._active.discard(token)

    # --- one run, step by step -----------------------------------------------------------------------------------

    async def _run(
        self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, box: _Box, report: Report
    ) -> Outcome:
        image = await self._call(self._inspect_image, f"sha256:{spec.image_digest.hex()}")
        if image is None:
            return Broke(Reason.IMAGE_MISSING, spec.image)
        if image.get("Architecture") != self._architecture:
            return Broke(Reason.ENGINE_REFUSED, f"the image is for {image.get('Architecture')}")
        labels = labels_of(self._node, spec, box.token)
        volumes = tuple((image.get("Config") or {}).get("Volumes") or ())
        try:
            config = task_container(spec, Mounted(image["Id"], box.volume, str(box.inputs), labels, volumes))
        except Unfit as error:
            return Broke(Reason.ENGINE_REFUSED, str(error))
        try:
            await self._call(self._prepare, spec, inputs, box, labels)
        except BadInput as error:
            return Broke(Reason.INPUT_MISSING, str(error))
        # The holder runs before the task starts: a short task could otherwise end before anything else holds the
        # volume, and its outputs would be gone as if it had left none.
        await self._both(
            partial(self._start, holder_container(self._holder_image, box.volume, labels), box.holder),
            partial(self._create, config, box.job),
        )
        await self._call(self._start_created, box.job)
        report(RunState.RUNNING)
        ended = await self._wait(box.job, spec.limits.run_ms)
        if not ended:
            await self._call(self._kill, box.job)
            return Broke(
                Reason.TIMED_OUT, f"still running after {spec.limits.run_ms} ms", await self._call(self._log, box.job)
            )
        report(RunState.COLLECTING)
        return await self._call(self._collect, spec, blobs, box)

    async def _wait(self, container: str, run_ms: int) -> bool:
        """Whether the container ended in time. The thread that waits is left behind otherwise; the kill ends it."""
        seconds = run_ms / 1000

        def wait() -> None:
            with _translation():
                self._client().wait(container, timeout=seconds + CALL_S)

        with trio.move_on_after(seconds):
            # The stubs libp2p brings along (trio-typing) know an older trio.
            await trio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=self._waits)  # type: ignore[call-arg]
            return True
        return False

    async def _both(self, *steps: Callable[[], None]) -> None:
        faults: list[_Fault] = []

        async def one(step: Callable[[], None]) -> None:
            try:
                await self._call(step)
            except _Fault as fault:
                faults.append(fault)

        async with trio.open_nursery() as nursery:
            for step in steps:
                nursery.start_soon(one, step)
        if faults:
            raise faults[0]

    async def _try(self, step: Callable[..., None], *arguments: object) -> None:
        """A step of clearing away; what it cannot remove is found by its label at the next start."""
        try:
            await self._call(step, *arguments)
        except _Fault:
            return

    async def _call(self, step: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(self._translating(step), *arguments, limiter=self._calls)

    def _translating(self, step: Callable[..., T]) -> Callable[..., T]:
        def translated(*arguments: object) -> T:
            with _translation():
                return step(*arguments)

        return translated

    # --- in threads: the SDK --------------------------------------------------------------------------------------

    def _client(self) -> Any:
        with self._lock:
            if self._api is None:
                api = _connect((self._host,) if self._host else candidates())
                self._architecture = str(api.version().get("Arch", ""))
                self._api = api
            return self._api

    def _version(self) -> str:
        return str(self._client().version().get("Version", ""))

    def _inspect_image(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client().inspect_image(name)
        except (ImageNotFound, NotFound):
            return None
        return found

    def _pull(self, name: str, tag: str) -> None:
        for line in self._client().pull(name, tag=tag, stream=True, decode=True):
            trio.from_thread.check_cancelled()
            if "error" in line:
                raise _Fault(Reason.IMAGE_MISSING, str(line["error"]))

    def _export(self, digest: bytes, blobs: BlobStore) -> None:
        known = self._inspect_image(f"sha256:{digest.hex()}")
        if known is None:
            raise _Fault(Reason.IMAGE_MISSING, "the engine does not have it")
        layers = tuple(bytes.fromhex(name.removeprefix("sha256:")) for name in known["RootFS"]["Layers"])
        if all(blobs.has(sha) for sha in (digest, *layers)):
            return
        with self._stream(f"images/sha256:{digest.hex()}/get") as chunks:
            images.keep(_patient(chunks), digest, layers, blobs)

    def _import(self, digest: bytes, blobs: BlobStore) -> None:
        images.verify(digest, blobs)
        for line in self._client().load_image(_patient(images.archive(digest, blobs))):
            if "error" in line:
                raise _Fault(Reason.IMAGE_MISSING, str(line["error"]))

    def _prepare(self, spec: TaskSpec, inputs: Mapping[str, Path], box: _Box, labels: dict[str, str]) -> None:
        stage(inputs, box.inputs)
        self._ensure_holder_image()
        self._client().create_volume(box.volume, driver="local", driver_opts=out_volume(spec), labels=labels)

    def _ensure_holder_image(self) -> None:
        """Find the holder by its content, never by its name alone: anybody's archive could bring an image of that
        name.
        """
        api, name = self._client(), f"{holder.REPOSITORY}:{holder.TAG}"
        wanted = [holder.layer_id(self._architecture)]
        with self._lock:
            known = self._inspect_known(api, self._holder_image or name)
            if known is None or known["RootFS"].get("Layers") != wanted:
                api.import_image_from_data(
                    holder.layer(self._architecture), repository=holder.REPOSITORY, tag=holder.TAG
                )
                known = api.inspect_image(name)
            if known["RootFS"].get("Layers") != wanted:
                raise _Fault(Reason.ENGINE_REFUSED, "the engine did not keep the holder image as it was given")
            self._holder_image = known["Id"]

    @staticmethod
    def _inspect_known(api: Any, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = api.inspect_image(name)
        except (ImageNotFound, NotFound):
            return None
        return found

    def _start(self, config: dict[str, object], name: str) -> None:
        self._create(config, name)
        self._start_created(name)

    def _create(self, config: dict[str, object], name: str) -> None:
        self._client().create_container_from_config(config, name)

    def _start_created(self, name: str) -> None:
        self._client().start(name)

    def _kill(self, container: str) -> None:
        try:
            self._client().kill(container)
        except DockerException:
            return  # it ended by itself in the meantime, or removal will have to do

    def _log(self, container: str) -> bytes:
        log: bytes = self._client().logs(container, stdout=True, stderr=True)
        return log[-LOG_TAIL_BYTES:]

    def _collect(self, spec: TaskSpec, blobs: BlobStore, box: _Box) -> Outcome:
        api = self._client()
        log = self._log(box.job)
        state = api.inspect_container(box.job)["State"]
        if state.get("Status") != "exited":
            return Broke(Reason.ENGINE_DOWN, f"the container is {state.get('Status')}: {state.get('Error')}"[:200], log)
        if state.get("OOMKilled"):
            return Broke(Reason.OUT_OF_MEMORY, f"more than {spec.limits.ram_bytes} bytes of memory", log)
        exit_code = int(state["ExitCode"]) & 0xFF
        selection = Selection(OUT.strip("/"), spec.outputs, spec.volatile, spec.limits.disk_bytes)
        try:
            with self._stream(f"containers/{box.holder}/archive", path=OUT) as chunks:
                kept = collect(_patient(chunks), selection, exit_code, blobs)
        except OutputsRefused as error:
            return Broke(Reason.OUTPUTS_REFUSED, str(error), log)
        except NoRoom as error:
            return Broke(Reason.NO_ROOM, str(error), log)
        assert kept.root == result_root(kept.manifest), "a root is the hash of its manifest"
        return Finished(exit_code, kept.root, kept.manifest, kept.files, log, _run_ms(state))

    @contextmanager
    def _stream(self, resource: str, **parameters: str) -> Iterator[Iterator[bytes]]:
        """A tar stream of the engine. Not the SDK's own calls: those cannot be closed before their end."""
        api = self._client()
        address = f"{api.base_url}/v{api.api_version}/{resource}"
        with api.get(address, params=parameters, stream=True, timeout=CALL_S) as response:
            response.raise_for_status()
            yield response.iter_content(_ARCHIVE_CHUNK)

    def _remove_container(self, name: str) -> None:
        try:
            self._client().remove_container(name, v=True, force=True)
        except NotFound:
            return

    def _remove_rest(self, box: _Box) -> None:
        shutil.rmtree(box.inputs, ignore_errors=True)
        try:
            self._client().remove_volume(box.volume, force=True)
        except NotFound:
            return

    def _reap(self) -> int:
        api = self._client()
        ours = {"label": f"nexapod.node={self._node}"}
        count = 0
        for container in api.containers(all=True, filters=ours):
            if container["Labels"].get("nexapod.run") not in self._active:
                self._remove_container(container["Id"])
                count += 1
        for volume in api.volumes(filters=ours)["Volumes"] or ():
            if (volume["Labels"] or {}).get("nexapod.run") not in self._active:
                api.remove_volume(volume["Name"], force=True)
                count += 1
        for folder in self._scratch.glob("nexapod-*"):
            if folder.name.removeprefix("nexapod-") not in self._active:
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        return count


def _connect(hosts: tuple[str, ...]) -> Any:
    """The first engine that answers. Only local ones: another machine's cannot see the inputs."""
    tried = []
    for host in hosts:
        if not host.startswith(("unix://", "npipe://")):
            tried.append(f"{host} is not on this machine")
            continue
        try:
            _knock(host)
            return docker.APIClient(base_url=host, version="auto", timeout=CALL_S)
        except (DockerException, OSError) as error:
            tried.append(f"{host}: {_first_line(error)}")
    raise _Fault(Reason.ENGINE_DOWN, "no container engine answers (" + "; ".join(tried) + ")")


def _knock(host: str) -> None:
    """Connect and hang up: the SDK leaks its socket where nobody listens. Raises: OSError."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(CALL_S)
            door.connect(host.removeprefix("unix://"))


@contextmanager
def _translation() -> Iterator[None]:
    """The one place where the SDK's exceptions end; what it raises beyond its own is what lies below it."""
    try:
        yield
    except (ImageNotFound, NotFound) as error:
        raise _Fault(Reason.ENGINE_DOWN, f"something is gone that was just made: {_first_line(error)}") from error
    except DockerException as error:
        down = getattr(error, "response", None) is None
        raise _Fault(Reason.ENGINE_DOWN if down else Reason.ENGINE_REFUSED, _first_line(error)) from error
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise _Fault(Reason.ENGINE_DOWN, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error)
    return text.partition("\n")[0][:_DETAIL_CHARS_MAX]


def _patient(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, given up between two of them when the task is cancelled."""
    for chunk in chunks:
        trio.from_thread.check_cancelled()
        yield chunk


def _run_ms(state: dict[str, Any]) -> int:
    """From start to exit by the engine's clock: pulling, creating and collecting are not run time."""
    begun, ended = (datetime.fromisoformat(state[key][:19] + "+00:00") for key in ("StartedAt", "FinishedAt"))
    fractions = [
        int((state[key][19:].strip("Z").lstrip(".") or "0").ljust(9, "0")[:9]) for key in ("StartedAt", "FinishedAt")
    ]
    return max(0, round((ended - begun).total_seconds() * 1000 + (fractions[1] - fractions[0]) / 1_000_000))
