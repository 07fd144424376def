"""Whole nodes in this process: everything daemon/app.py puts together, with an engine that needs no containers.

Also strangers: peers with a real host and real keys, whose answers a test writes by hand.
"""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import trio

from bootstrap.bootstrap_file import Bootstrap
from bootstrap.setup import create_node, export_bootstrap, found_network, join_network
from daemon.app import Ending, run
from daemon.host import Mesh, open_host
from daemon.lending import GB
from daemon.local.desk import Desk
from daemon.parts import Parts
from nexapod.cli.client import Api
from nexapod.config import Config, load_config
from nexapod.encoding import decode, encode
from nexapod.events import make_genesis, sign_note
from nexapod.hashing import Tag, blob_id
from nexapod.home import Home, find_home
from nexapod.identity import Key, next_key_digest
from nexapod.limits import ADVERT_VALID_MS, REPLY_BYTES_MAX
from nexapod.messages import Advert, Ask, AskHello, HelloReply, Profile, Refused, Reply
from runtime.memory import MemoryEngine
from runtime.task import TaskSpec

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
PATIENCE_S = 30.0
IMAGE = "nexapod/test:1"
T = TypeVar("T")
Script = Callable[[bytes, Ask], Awaitable[Reply | bytes]]


async def eventually(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait until something that happens in another task is so."""
    with trio.fail_after(patience_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a library or on a disk
            await trio.sleep(0.01)


# --- nodes ------------------------------------------------------------------------------------------------------------
def program(spec: TaskSpec, inputs: Any) -> dict[str, bytes]:
    """What the test image does: every input reversed, and the number of the task."""
    return {"task.txt": b"%d of %d\n" % (spec.index, spec.count)} | {
        f"back/{path}": content[::-1] for path, content in inputs.items()
    }


def job_of(label: str = "sum", **changes: Any) -> dict[str, Any]:
    """A descriptor of the test image, as a person writes it; a key set to None is left out."""
    document = {
        "schema_version": "1.0", "job_id": label, "type": "test", "image": IMAGE, "estimated_flops": 1e12,
        "requirements": {"ram_gb": 0.064, "disk_gb": 0.01}, "timeouts": {"run_s": 60, "queue_s": 50},
    } | changes  # fmt: skip
    return {key: value for key, value in document.items() if value is not None}


def seed_job() -> dict[str, Any]:
    """The client's own example of a descriptor."""
    return {
        "schema_version": "1.0", "job_id": "fold_ensemble_v1", "type": "protein_folding",
        "input_files": ["input1.fasta", "params.json"], "docker_image": "nexapod/folding:latest",
        "estimated_flops": 1.2e12, "tier": 1, "requirements": {"gpu": True, "ram_gb": 8},
        "input_uri": "s3://nexapod-inputs/fold_ensemble_v1/", "tolerance": 0.01, "credit_rate": 1.0,
    }  # fmt: skip


@dataclass
class Standing:
    """One node and the way to its local API."""

    home: Home
    config: Config
    desk: Desk
    engine: MemoryEngine
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ending: Ending = field(default_factory=Ending)
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def parts(self) -> Parts:
        assert self.desk.parts is not None
        return self.desk.parts

    @property
    def feed(self) -> bytes:
        return self.parts.node.feed

    @property
    def key(self) -> bytes:
        return self.parts.node.key.public

    @property
    def api(self) -> Api:
        return Api(self.home.socket())

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        return await trio.to_thread.run_sync(lambda: self.api.get(path, **query))

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await trio.to_thread.run_sync(self.api.post, path, body)

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        self.ending.soon.set()
        await self.ended.wait()

    async def crash(self) -> None:
        """End it as a failure does: nothing is said or written any more."""
        self.scope.cancel()
        await self.ended.wait()


def new_home(folder: Path, name: str, bootstrap: Bootstrap | None = None) -> Home:
    """A home with a node, of the network of `bootstrap` when there is one."""
    home = find_home(str(folder / name), {})
    create_node(home, name=name, listen=LOOPBACK)
    if bootstrap is not None:
        join_network(home, bootstrap)
    return home


@asynccontextmanager
async def running(home: Home, *, stands: bool = True, **flags: Any) -> AsyncIterator[Standing]:
    """The node of this home while the block runs; with `stands`, from when it stands on its network."""
    config = load_config(home, {}, {"engine": "docker", **flags})
    node = Standing(home, config, Desk(home, config), MemoryEngine({IMAGE: program}, name="docker"))

    async def live() -> None:
        try:
            with node.scope:
                await run(home, config, node.ending, node.desk, lambda *_: {"docker": node.engine})
        finally:
            node.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await eventually(lambda: node.desk.parts is not None if stands else node.api.path.exists())
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def standing_mesh(folder: Path, count: int = 3, **flags: Any) -> AsyncIterator[list[Standing]]:
    """Nodes of one network, all introduced to each other; the first founded it and is its witness."""
    home = new_home(folder, "node0")
    found_network(home, "lab", node_name="node0")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(running(home, **flags))]
        bootstrap = export_bootstrap(home, nodes[0].parts.mesh.addresses())
        for number in range(1, count):
            home = new_home(folder, f"node{number}", bootstrap)
            nodes.append(await stack.enter_async_context(running(home, **flags)))
        await until_met(*nodes)
        yield nodes


@asynccontextmanager
async def standing_node(folder: Path, **flags: Any) -> AsyncIterator[Standing]:
    """One node that founded its network and is alone on it."""
    async with standing_mesh(folder, 1, **flags) as (node,):
        yield node


async def until_met(*nodes: Standing) -> None:
    """All of these nodes have introduced themselves to each other and know what the others lend."""
    keys = {node.key for node in nodes}
    for node in nodes:
        await eventually(lambda node=node: node.parts.neighbours.introduced() >= keys - {node.key})
        await eventually(lambda node=node: all(node.parts.nodes.advert_of(key) for key in keys))


async def until_equal(*nodes: Standing) -> None:
    """All ledgers hold the same events, and the same of them have taken effect."""

    def equal() -> bool:
        replicas = [node.parts.ledger.replica for node in nodes]
        return len({(replica.frontier_root(), replica.fold.state_root(), replica.events) for replica in replicas}) == 1

    await eventually(equal)


async def settled(node: Standing, job: str) -> dict[str, Any]:
    """The document of an own job once it is over."""
    after, over = 0, False
    with trio.fail_after(PATIENCE_S):
        while not over:
            answer = await node.get(f"/v1/jobs/{job}/events", after=after, wait_s=20)
            after, over = answer["next"], answer["over"]
    return await node.get(f"/v1/jobs/{job}")


# --- a mesh beside the test -------------------------------------------------------------------------------------------
class Lab:
    """Nodes that live in a thread of their own, for tests that talk to them as a client does."""

    def __init__(self) -> None:
        self.nodes: list[Standing] = []
        self.apis: list[Api] = []
        self._token: trio.lowlevel.TrioToken | None = None

    def within(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function among the nodes."""
        return trio.from_thread.run(work, *args, trio_token=self._token)

    async def serve(self, folder: Path, count: int, ready: threading.Event, stop: trio.Event) -> None:
        async with standing_mesh(folder, count) as nodes:
            self.nodes, self.apis = nodes, [node.api for node in nodes]
            self._token = trio.lowlevel.current_trio_token()
            ready.set()
            await stop.wait()


@contextmanager
def lab_of(folder: Path, count: int) -> Iterator[Lab]:
    """A standing mesh in a thread."""
    lab, ready, failed = Lab(), threading.Event(), list[BaseException]()
    stop = trio.Event()

    def work() -> None:
        try:
            trio.run(lab.serve, folder, count, ready, stop)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="lab")
    thread.start()
    ready.wait(2 * PATIENCE_S)
    try:
        if lab.nodes:
            yield lab
    finally:
        if lab.nodes:
            trio.from_thread.run_sync(stop.set, trio_token=lab._token)
        thread.join(PATIENCE_S)
    if failed:
        raise failed[0]


# --- strangers --------------------------------------------------------------------------------------------------------
@dataclass
class Stranger:
    """A peer whose words a test chooses. `answers` gets the key of the asker and the question."""

    netid: bytes
    key: Key
    mesh: Mesh
    answers: Script | None = None
    asked: list[Ask] = field(default_factory=list)
    genesis: bytes = b""
    feed: bytes = b""
    greets: bool = True  # answers hello by itself

    def advert(self, **changes: Any) -> bytes:
        """Its own signed advert."""
        return signed_advert(self.key, self.netid, self.feed, addresses=tuple(self.mesh.addresses()), **changes)

    async def ask(self, key: bytes, question: Ask) -> Reply:
        """Ask a node something on a stream."""
        return await self.ask_raw(key, encode(question))

    async def ask_raw(self, key: bytes, payload: bytes) -> Reply:
        with trio.fail_after(PATIENCE_S):
            raw = await self.mesh.request(key, payload, reply_max=REPLY_BYTES_MAX)
        return cast(Reply, decode(raw, cast(Any, Reply), size_max=REPLY_BYTES_MAX))

    async def hello(self, node: Standing, **changes: Any) -> Reply:
        """Connect and introduce itself; `changes` to what it says."""
        with trio.fail_after(PATIENCE_S):
            await self.mesh.connect(node.key, node.parts.mesh.addresses())
        words = {"netid": self.netid, "genesis": self.genesis, "advert": self.advert()} | changes
        return await self.ask(node.key, AskHello(**words))

    async def answer(self, key: bytes, payload: bytes) -> bytes:
        ask = cast(Ask, decode(payload, cast(Any, Ask), size_max=len(payload)))
        self.asked.append(ask)
        if isinstance(ask, AskHello) and self.greets:
            return encode(HelloReply(self.genesis, self.advert()))
        reply: Reply | bytes = Refused("unavailable", "")
        if self.answers is not None:
            reply = await self.answers(key, ask)
        return reply if isinstance(reply, bytes) else encode(reply)


@asynccontextmanager
async def stranger(netid: bytes, number: int = 9) -> AsyncIterator[Stranger]:
    """A stranger on loopback; the same number has the same key."""
    key = Key.from_seed(bytes([number]) * 32)
    genesis = make_genesis(key, netid, next_key_digest(Key.from_seed(bytes([number, 1]) * 16).public))
    async with open_host(key.seed, LOOPBACK) as mesh:
        made = Stranger(netid, key, mesh, genesis=genesis.raw, feed=genesis.feed)
        mesh.serve_requests(made.answer)
        yield made


PROFILE = Profile(cores=8, ram_bytes=16 * GB, disk_bytes=100 * GB, flops=10**9, numeric_class="x86-64-v3", gpus=())


def signed_advert(key: Key, netid: bytes, feed: bytes = b"", **changes: Any) -> bytes:
    """An advert of a node that can run docker tasks, signed."""
    advert = Advert(
        key=key.public, feed=feed or blob_id(key.public), seq=1, valid_ms=ADVERT_VALID_MS, name="", addresses=(),
        engines=("docker",), tier=0, slots=2, profile=PROFILE,
    )  # fmt: skip
    fields = {name: getattr(advert, name) for name in Advert.__struct_fields__} | changes
    return sign_note(key, Tag.ADVERT, netid, Advert(**fields))


def meet(node: Standing, count: int, **changes: Any) -> None:
    """Let a node know of so many others, by their adverts alone."""
    for number in range(1, count + 1):
        key = Key.from_seed(bytes([number]) * 32)
        node.parts.neighbours.learn(signed_advert(key, node.parts.node.netid, **changes))
