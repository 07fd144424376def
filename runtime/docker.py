"""Docker, and whatever speaks its language, as an engine.

Knows the SDK and which exceptions it raises; the only file that does. Must never decide what is safe: that is
sandbox.py, nor what is a result: that is collector.py. Every SDK call runs in a thread.
"""

import base64
import errno
import json
import re
import secrets
import shutil
import socket
import threading
import time
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
KNOCK_S = 10  # finding out whether it does
BACK_S = 20.0  # a restarted engine is back by then; a slot waits so long before its task is given up
LOOK_AGAIN_S = 0.5
DISCARD_S = 60  # taking a box apart; what is left after that is reaped as soon as the engine answers again
CALLS_MAX = 8  # SDK calls at once; more wait, the engine is no faster with them
WAITS_MAX = 256  # threads that wait for a container to end; the runner's slots stay far below
_ARCHIVE_CHUNK = 1 << 20
_DETAIL_CHARS_MAX = 500
# What an engine says of a container it lost between two steps because it was itself restarted.
_CUT_OFF = ("process is already dead", "cannot start a stopped process")
CLOCKS_NS = 2 * 10**9  # how far the clock of an engine in a virtual machine may be behind before we wait for it
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)

T = TypeVar("T")


class _Fault(Exception):
    """The engine, or the way to it, failed a task."""

    def __init__(self, reason: Reason, detail: str, *, lost: bool = False) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.lost = reason, detail[:_DETAIL_CHARS_MAX], lost


class _Box(msgspec.Struct, frozen=True):
    """The names of everything one run makes, chosen before any of it exists so that all of it can be removed."""

    token: str
    job: str
    holder: str
    volume: str
    inputs: Path


class DockerEngine:
    """Runs each task in its own container. `node` tells the containers of nodes on one host apart, `back_s` is how long
    a task waits for an engine that went away under it.
    """

    name = "docker"

    def __init__(self, *, node: str, scratch: Path, host: str | None = None, back_s: float = BACK_S) -> None:
        self._node, self._scratch, self._host, self._back_s = node, scratch, host, back_s
        self._address = ""  # where the engine listens, once one was found
        self._api: Any = None  # forgotten when a call does not get through: the next one looks for an engine anew
        self._lock = threading.Lock()  # of _api and _holder_image, both made once, in threads
        self._holder_image = ""
        self._architecture = ""
        self._active: set[str] = set()
        self._unclean = False  # something of ours could not be removed, or was not looked for yet
        self._calls = trio.CapacityLimiter(CALLS_MAX)
        self._waits = trio.CapacityLimiter(WAITS_MAX)

    async def probe(self) -> EngineInfo:
        try:
            version = await self._call(self._version)
        except _Fault as fault:
            return EngineInfo(self.name, "", ready=False, why=fault.detail)
        if self._architecture not in holder.architectures():
            return EngineInfo(self.name, version, ready=False, why=f"{self._architecture} is not supported yet")
        if self._unclean:
            await self.reap()
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
        """As promised; what cannot be removed now, goes when a probe finds the engine again."""
        self._unclean = False  # before looking: what fails to go away from now on is for the next time
        try:
            count, left = await self._call(self._reap)
        except _Fault:
            count, left = 0, True
        if left:
            self._unclean = True
        return count

    async def run(self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report) -> Outcome:
        """As promised. When the engine went away under the task and is soon back, the task is run again from the start,
        once: nothing that a box went through a restart with is a result.
        """
        outcome = await self._run_once(spec, inputs, blobs, report)
        if isinstance(outcome, Broke) and outcome.reason == Reason.ENGINE_DOWN and await self._is_back():
            outcome = await self._run_once(spec, inputs, blobs, report)
        return outcome

    async def _is_back(self) -> bool:
        """Whether the engine answers, or does so before patience ends."""
        with trio.move_on_after(self._back_s):
            while True:
                if (await self.probe()).ready:
                    return True
                await trio.sleep(LOOK_AGAIN_S)
        return False

    async def _run_once(self, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report) -> Outcome:
        token = secrets.token_hex(8)
        name = f"nexapod-{token}"
        box = _Box(token, f"{name}-task", f"{name}-holder", f"{name}-out", self._scratch / name)
        self._active.add(token)
        try:
            return await self._run(spec, inputs, blobs, box, report)
        except _Fault as fault:
            return Broke(fault.reason, fault.detail)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(DISCARD_S) as scope:
                async with trio.open_nursery() as nursery:
                    for part in (box.job, box.holder):
                        nursery.start_soon(self._try, self._remove_container, part)
                await self._try(self._remove_rest, box)
            self._unclean = self._unclean or scope.cancelled_caught
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
        """A step of clearing away; what it cannot remove is found by its label when the engine answers again."""
        try:
            await self._call(step, *arguments)
        except _Fault:
            self._unclean = True

    async def _call(self, step: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(self._translating(step), *arguments, limiter=self._calls)

    def _translating(self, step: Callable[..., T]) -> Callable[..., T]:
        def translated(*arguments: object) -> T:
            try:
                with _translation():
                    return step(*arguments)
            except _Fault as fault:
                if fault.lost:
                    self._api = None
                raise

        return translated

    # --- in threads: the SDK --------------------------------------------------------------------------------------

    def _client(self) -> Any:
        with self._lock:
            if self._api is not None and not _listens(self._address):
                self._api = None
            if self._api is None:
                self._address, api = _connect((self._host,) if self._host else candidates())
                self._architecture = str(api.version().get("Arch", ""))
                self._api = api
            return self._api

    def _version(self) -> str:
        try:
            return self._version_of(self._client())
        except (OSError, urllib3.exceptions.HTTPError):
            self._api = None  # what is found, or missed, by looking anew is what counts, and what a person can read
            return self._version_of(self._client())

    @staticmethod
    def _version_of(api: Any) -> str:
        with api.get(f"{api.base_url}/version", timeout=KNOCK_S) as response:
            response.raise_for_status()
            return str(response.json().get("Version", ""))

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
        with self._stream(f"images/sha256:{digest.hex()}/get") as response:
            images.keep(_patient(response.iter_content(_ARCHIVE_CHUNK)), digest, layers, blobs)

    def _import(self, digest: bytes, blobs: BlobStore) -> None:
        images.verify(digest, blobs)
        for line in self._client().load_image(_patient(images.archive(digest, blobs))):
            if "error" in line:
                raise _Fault(Reason.IMAGE_MISSING, str(line["error"]))

    def _prepare(self, spec: TaskSpec, inputs: Mapping[str, Path], box: _Box, labels: dict[str, str]) -> None:
        try:
            stage(inputs, box.inputs)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise _Fault(Reason.NO_ROOM if full else Reason.INPUT_MISSING, f"inputs: {error}") from error
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
            with self._stream(f"containers/{box.holder}/archive", path=OUT) as response:
                _refuse_new_volume(response, state)
                kept = collect(_patient(response.iter_content(_ARCHIVE_CHUNK)), selection, exit_code, blobs)
            self._refuse_killed(box.job, state)
        except OutputsRefused as error:
            return Broke(Reason.OUTPUTS_REFUSED, str(error), log)
        except NoRoom as error:
            return Broke(Reason.NO_ROOM, str(error), log)
        assert kept.root == result_root(kept.manifest), "a root is the hash of its manifest"
        return Finished(exit_code, kept.root, kept.manifest, kept.files, log, _run_ms(state))

    def _refuse_killed(self, container: str, state: dict[str, Any]) -> None:
        """Refuse a result whose program was sent a signal by way of the engine: it stops, or somebody stopped the task.
        How a program ends then, even if well, is not its own result.
        """
        begun, ended = _nanoseconds(state["StartedAt"]), _nanoseconds(state["FinishedAt"])
        # A moment that is to come would be waited for, and the engine's clock need not be this machine's.
        until = max(ended, min(time.time_ns(), ended + CLOCKS_NS))
        period = {key: f"{at // 10**9}.{at % 10**9:09}" for key, at in (("since", begun), ("until", until))}
        only = json.dumps({"type": ["container"], "container": [container], "event": ["kill"]})
        with self._stream("events", **period, filters=only) as response:
            if kills := response.content.splitlines():
                signal = json.loads(kills[0])["Actor"]["Attributes"].get("signal")
                raise _Fault(Reason.ENGINE_DOWN, f"the container was stopped from outside, with signal {signal}")

    @contextmanager
    def _stream(self, resource: str, **parameters: str) -> Iterator[Any]:
        """A response of the engine, as it comes. Not the SDK's own calls: those cannot be closed before their end."""
        api = self._client()
        address = f"{api.base_url}/v{api.api_version}/{resource}"
        with api.get(address, params=parameters, stream=True, timeout=CALL_S) as response:
            response.raise_for_status()
            yield response

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

    def _reap(self) -> tuple[int, bool]:
        """How many things of ours were removed, and whether some would not go."""
        api = self._client()
        ours = {"label": f"nexapod.node={self._node}"}

        def idle(labels: dict[str, str] | None) -> bool:
            return (labels or {}).get("nexapod.run") not in self._active

        containers = [found for found in api.containers(all=True, filters=ours) if idle(found["Labels"])]
        volumes = [found for found in api.volumes(filters=ours)["Volumes"] or () if idle(found["Labels"])]
        folders = [
            found
            for found in self._scratch.glob("nexapod-*")
            if found.name.removeprefix("nexapod-") not in self._active
        ]
        steps: list[Callable[[], None]] = [
            *(partial(self._remove_container, found["Id"]) for found in containers),
            *(partial(api.remove_volume, found["Name"], force=True) for found in volumes),
            *(partial(shutil.rmtree, found) for found in folders),
        ]
        gone = 0
        for remove in steps:  # one that will not go must not keep the others
            try:
                remove()
            except (DockerException, OSError):
                continue
            gone += 1
        return gone, gone < len(steps)


def _connect(hosts: tuple[str, ...]) -> tuple[str, Any]:
    """The first engine that answers, and where. Only local ones: another machine's cannot see the inputs."""
    tried = []
    for host in hosts:
        if not host.startswith(("unix://", "npipe://")):
            tried.append(f"{host} is not on this machine")
            continue
        try:
            _knock(host)
            api = docker.APIClient(base_url=host, version="auto", timeout=KNOCK_S)
            api.timeout = CALL_S
            return host, api
        except (DockerException, OSError) as error:
            tried.append(f"{host}: {_first_line(error)}")
    raise _Fault(Reason.ENGINE_DOWN, "no container engine answers (" + "; ".join(tried) + ")", lost=True)


def _knock(host: str) -> None:
    """Connect and hang up: the SDK leaks its socket where nobody listens. Raises: OSError."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(KNOCK_S)
            door.connect(host.removeprefix("unix://"))


def _listens(host: str) -> bool:
    try:
        _knock(host)
    except OSError:
        return False
    return True


@contextmanager
def _translation() -> Iterator[None]:
    """The one place where the SDK's exceptions end; what it raises beyond its own is what lies below it."""
    try:
        yield
    except (ImageNotFound, NotFound) as error:
        raise _Fault(Reason.ENGINE_DOWN, f"something is gone that was just made: {_first_line(error)}") from error
    except DockerException as error:
        down = getattr(error, "response", None) is None or any(word in str(error) for word in _CUT_OFF)
        raise _Fault(Reason.ENGINE_DOWN if down else Reason.ENGINE_REFUSED, _first_line(error), lost=down) from error
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise _Fault(Reason.ENGINE_DOWN, _first_line(error), lost=True) from error


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error)
    return text.partition("\n")[0][:_DETAIL_CHARS_MAX]


def _patient(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, given up between two of them when the task is cancelled."""
    for chunk in chunks:
        trio.from_thread.check_cancelled()
        yield chunk


def _refuse_new_volume(response: Any, state: dict[str, Any]) -> None:
    """Refuse outputs that are younger than the end of the task: an engine that was restarted makes the volume anew, and
    a task that left something would seem to have left nothing.
    """
    about = json.loads(base64.b64decode(response.headers.get("X-Docker-Container-Path-Stat", "")) or "{}")
    if "mtime" not in about:
        raise _Fault(Reason.ENGINE_REFUSED, "the engine does not say how old the outputs are")
    if _nanoseconds(about["mtime"]) > _nanoseconds(state["FinishedAt"]):
        raise _Fault(Reason.ENGINE_DOWN, "the engine lost the outputs: it was restarted")


def _run_ms(state: dict[str, Any]) -> int:
    """From start to exit by the engine's clock: pulling, creating and collecting are not run time."""
    return max(0, round((_nanoseconds(state["FinishedAt"]) - _nanoseconds(state["StartedAt"])) / 1_000_000))


def _nanoseconds(moment: str) -> int:
    """Since 1970, of a moment as engines write it: RFC 3339 with up to nine digits of a second."""
    found = _MOMENT.fullmatch(moment)
    if found is None:
        raise _Fault(Reason.ENGINE_REFUSED, f"the engine wrote {moment[:40]!r} for a moment")
    seconds, fraction, zone = found.groups(default="")
    begun = datetime.fromisoformat(seconds + zone.replace("Z", "+00:00"))
    return int(begun.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
