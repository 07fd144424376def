"""Valid inputs to begin with: one of every kind and shape, and the largest the protocol allows.

Knows how each format is made. Must never know how it is read.
"""

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from bootstrap.address import PeerAddress
from bootstrap.bootstrap_file import PEERS_MAX, new_bootstrap
from bootstrap.manifest import MEMBERS_MAX, Manifest, Member
from gossip.batch import encode_batch
from nexapod.encoding import encode
from nexapod.events import make_event, sign_note
from nexapod.hashing import Tag, blob_id, tagged
from nexapod.identity import Key, peer_id
from nexapod.job import ResolvedInput, decode_resolved
from nexapod.limits import ENTRIES_MAX, EXECUTIONS_MAX, FRONTIER_PER_PAGE
from nexapod.messages import (
    Ack,
    AckEntry,
    Advert,
    Ask,
    Assignment,
    Claim,
    Commit,
    CommitEntry,
    EventsReply,
    FrontierReply,
    Head,
    Opening,
    Reply,
    Settle,
    Settlement,
)
from runtime.outputs import FILES_MAX, manifest_of
from runtime.task import OutputFile
from tests.fuzz.mutation import Seed
from tests.nexapod.strategies import worst
from tests.vectors.write import (
    FIRST_EXAMPLE,
    GENESIS,
    KEY,
    MANIFEST,
    NETID,
    NEXT,
    OFFER_ID,
    OTHER,
    VECTORS,
    sha,
)

KEYS = tuple(Key.from_seed(blob_id(b"fuzz %d" % number)) for number in range(PEERS_MAX))


def sealed(body: bytes) -> bytes:
    """What is mutated inside an envelope, whose signature then fits no more."""
    return encode((body, bytes(64)))


def resigned(tag: Tag, key: Key = KEY, netid: bytes = NETID) -> Callable[[bytes], bytes]:
    """What is mutated inside and signed again, so that it is read to the end."""
    return lambda body: encode((body, key.sign(tagged(tag, netid, body))))


def wrapped(raw: bytes, wrap: Callable[[bytes], bytes]) -> Seed:
    """A pair of body and signature as a seed whose body is mutated."""
    return Seed(raw, msgspec.msgpack.decode(raw)[0], wrap)


# --- events -----------------------------------------------------------------------------------------------------------
def events(wrap: Callable[[bytes], bytes] = sealed) -> tuple[Seed, ...]:
    """One of every kind, and one of a kind nobody knows yet."""
    known = [wrapped(bytes.fromhex(event["raw"]), wrap) for event in VECTORS["events"]()["events"]]
    later = encode((1, GENESIS.id, 1, GENESIS.id, 99, 7, (1, b"bytes", "text", (None, True, (2**40,)))))
    return (*known, wrapped(sealed(later), wrap))


def large_events() -> tuple[Seed, ...]:
    """Events filled to the brim."""
    commits = tuple(CommitEntry(task, 15, sha(str(task))) for task in range(ENTRIES_MAX))
    acks = tuple(AckEntry(sha(str(task)), 2**62, sha("x")) for task in range(ENTRIES_MAX))
    opening = Opening(sha("commit"), bytes(16), "x" * 64, 2**62, sha("root"), 2**62)
    openings = Settlement(9_999, sha("root"), (opening,) * EXECUTIONS_MAX)
    made = (Commit(OFFER_ID, sha("a"), commits), Ack(acks), Settle(OFFER_ID, (openings,) * 4))
    return tuple(
        wrapped(make_event(KEY, NETID, feed=GENESIS.id, seq=1, prev=GENESIS.id, ts=7, data=data).raw, sealed)
        for data in made
    )


# --- messages ---------------------------------------------------------------------------------------------------------
def least(kind: Any) -> Any:
    """The smallest sound value of a message type: numbers at their least, lists with one element, everything there."""
    return _least(msgspec.inspect.type_info(kind))


def _least(shape: msgspec.inspect.Type) -> Any:
    match shape:
        case msgspec.inspect.IntType():
            return shape.ge or 0
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.BytesType():
            return bytes(shape.min_length or min(shape.max_length or 3, 3))
        case msgspec.inspect.StrType():
            return "a"
        case msgspec.inspect.VarTupleType():
            return (_least(shape.item_type),)
        case msgspec.inspect.StructType():
            return shape.cls(*(_least(field.type) for field in shape.fields))
    raise NotImplementedError(shape)


def asks() -> tuple[Seed, ...]:
    """Every question."""
    return tuple(Seed(encode(least(kind))) for kind in get_args(Ask))


def large_asks() -> tuple[Seed, ...]:
    return tuple(Seed(encode(worst(kind))) for kind in get_args(Ask))


def replies() -> tuple[Seed, ...]:
    """Every answer."""
    return tuple(Seed(encode(least(kind))) for kind in get_args(Reply))


def large_replies() -> tuple[Seed, ...]:
    heads = FrontierReply(tuple(Head(sha(str(at)), 2**40, sha("id")) for at in range(FRONTIER_PER_PAGE)), True)
    page = EventsReply((bytes(1000),) * 1000)
    return tuple(Seed(encode(reply)) for reply in (heads, page))


def batches() -> tuple[Seed, ...]:
    claim = note_raws("claim of one offer")[0]
    return tuple(Seed(encode_batch(messages)) for messages in ([b"a"], [GENESIS.raw, claim], [b"abc"] * 20))


def large_batches() -> tuple[Seed, ...]:
    return (
        Seed(encode_batch([b"a"] * 1024)),
        Seed(encode_batch([bytes(60)] * 1000)),
        Seed(encode_batch([bytes(16_000)] * 4)),
    )


# --- notes ------------------------------------------------------------------------------------------------------------
def note_raws(*names: str) -> tuple[bytes, ...]:
    made = VECTORS["notes"]()
    return tuple(bytes.fromhex(made[name]) for name in names)


def adverts() -> tuple[Seed, ...]:
    (raw,) = note_raws("advert")
    return wrapped(raw, resigned(Tag.ADVERT)), Seed(raw)


def large_adverts() -> tuple[Seed, ...]:
    return (
        wrapped(
            sign_note(KEY, Tag.ADVERT, NETID, msgspec.structs.replace(worst(Advert), key=KEY.public)),
            resigned(Tag.ADVERT),
        ),
    )


def claims() -> tuple[Seed, ...]:
    raws = note_raws("claim of capacity", "claim of one offer")
    full = msgspec.structs.replace(worst(Claim), feed=GENESIS.id)
    return tuple(wrapped(raw, resigned(Tag.CLAIM)) for raw in (*raws, sign_note(KEY, Tag.CLAIM, NETID, full)))


def assignments() -> tuple[Seed, ...]:
    return tuple(wrapped(raw, resigned(Tag.ASSIGNMENT)) for raw in note_raws("assignment"))


def large_assignments() -> tuple[Seed, ...]:
    full = msgspec.structs.replace(worst(Assignment), owner=GENESIS.id)
    return (wrapped(sign_note(KEY, Tag.ASSIGNMENT, NETID, full), resigned(Tag.ASSIGNMENT)),)


# --- manifests and files ----------------------------------------------------------------------------------------------
def results() -> tuple[Seed, ...]:
    made = VECTORS["result"]()
    return Seed(bytes.fromhex(made["manifest"])), Seed(bytes.fromhex(made["failed"]))


def large_results() -> tuple[Seed, ...]:
    """As many files as there may be, in folders as deep as they may be."""
    deep = [OutputFile("/".join([f"{at:04}", *"abcdefghijklmn", "x" * 200]), at, sha("x")) for at in range(FILES_MAX)]
    foreign = [OutputFile(f"{at:04}" + "é" * 120, at, sha("x")) for at in range(FILES_MAX)]
    marked = [OutputFile(f"{at:04}" + "q\u0301" * 80, at, sha("x")) for at in range(FILES_MAX)]
    return tuple(Seed(manifest_of(0, files)) for files in (deep, foreign, marked))


def manifests() -> tuple[Seed, ...]:
    members = tuple(
        sorted((Member(key.public, sha("n"), "node", 3, "Zürich") for key in KEYS[:3]), key=lambda m: m.key)
    )
    return Seed(encode(MANIFEST)), Seed(encode(Manifest(1, "lab", "three", members, 2, (members[0].key,))))


def large_manifest() -> Manifest:
    keys = sorted(key.public for key in KEYS[:MEMBERS_MAX])
    members = tuple(Member(key, sha("n"), "é" * 64, 3 if at < 32 else 2, "ü" * 64) for at, key in enumerate(keys))
    return Manifest(1, "lab", "note", members, 17, tuple(keys))


def large_manifests() -> tuple[Seed, ...]:
    return (Seed(encode(large_manifest())),)


def bootstraps() -> tuple[Seed, ...]:
    return Seed(VECTORS["bootstrap"]()["text"].encode()), Seed(new_bootstrap(MANIFEST).text().encode())


def large_bootstraps() -> tuple[Seed, ...]:
    """Every member, every peer, every signature."""
    peers = tuple(
        PeerAddress(f"/ip4/192.0.2.7/tcp/{4001 + at}", key.public, peer_id(key.public)) for at, key in enumerate(KEYS)
    )
    made = new_bootstrap(large_manifest(), peers)
    for key in KEYS[:64]:
        made = made.signed(key)
    return (Seed(made.text().encode()),)


def resolved() -> tuple[Seed, ...]:
    return (Seed(bytes.fromhex(VECTORS["job"]()["resolved"])),)


def large_resolved() -> tuple[Seed, ...]:
    """As many inputs as fit, in folders as deep as they may be; and as many words."""
    made = decode_resolved(resolved()[0].raw)
    inputs = tuple(ResolvedInput("/".join([f"{at:04}", *"abcdefghijklmn", "é"]), sha("x"), at) for at in range(850))
    wordy = msgspec.structs.replace(made, command=("é" * 200,) * 150)
    return tuple(Seed(encode(job)) for job in (msgspec.structs.replace(made, inputs=inputs), wordy))


FULL_JOB: dict[str, Any] = {
    "schema_version": "1.0", "job_id": "full", "type": "docking", "image": "registry.example.org:5000/a/b:1.0",
    "engine": "docker", "command": "python run.py --x 'a b'", "args": ["--fast", "é"], "env": {"A": "1", "B_2": "x\ny"},
    "inputs": [{"uri": "file:data/a.csv"}, {"uri": "https://example.org/b", "path": "b", "sha256": "0" * 64}],
    "input_files": ["c.txt", "d/e.txt"], "tasks": 12, "estimated_flops": 1.2e12, "tier": 2, "priority": 3,
    "requirements": {
        "gpus": 1, "cpus": 0.5, "ram_gb": 1.5, "disk_gb": 3, "vram_gb": 8, "gpu_vendor": "nvidia", "arch": "amd64",
    },
    "outputs": ["*.csv", "**/x"], "volatile": ["log/a"], "network": "none", "labels": {"team": "x"}, "bounty": 1.5,
    "redundancy": {"replicas": 2, "quorum": 2, "max": 4, "mode": "operator"}, "deadline": "2031-05-01T12:00:00Z",
    "verify": {"mode": "tolerance", "rtol": 1e-6, "atol": 0.001}, "retry": {"max": 2, "on_exit": [1, 2]},
    "timeouts": {"run_s": 60, "queue_s": 600, "total_s": 3600}, "checkpoint": {"path": "state", "exit_code": 75},
    "placement": {"group": "g", "deny": ["a"]}, "credit_rate": 0.25, "retention_days": 7,
}  # fmt: skip
SWEPT_JOB: dict[str, Any] = {
    "job_id": "swept",
    "docker_image": "a",
    "matrix": {"X": {"start": 0, "stop": 9}, "Y": [1, 2.5, "z", True]},
    "after": ["full"],
}
LISTED_JOB: dict[str, Any] = {"job_id": "l", "image": "a@sha256:" + "0" * 64, "parameters": [{"A": 1}, {"A": "x"}]}


def jobs_json() -> tuple[Seed, ...]:
    return tuple(Seed(text.encode()) for text in (FIRST_EXAMPLE, *map(json.dumps, (FULL_JOB, SWEPT_JOB, LISTED_JOB))))


def large_jobs_json() -> tuple[Seed, ...]:
    """As many inputs as there may be, and as many words."""
    paths = [f"data/part/{at:05}.csv" for at in range(1024)]
    inputs = [{"uri": f"file:more/part/{at:05}.csv"} for at in range(1024)]
    job = {"job_id": "large", "image": "a", "input_files": paths, "inputs": inputs, "command": ["x" * 100] * 256}
    return (Seed(json.dumps(job).encode()),)


JOB_YAML = b"""# a job
schema_version: "1.0"
job_id: fold
image: nexapod/folding:latest
command:
  - python
  - run.py
env:
  A: "1"
  B: |
    two
tasks: 3
estimated_flops: 1.2e12
requirements:
  gpu: true
  ram_gb: 8
inputs:
- uri: file:data/a.csv
  path: a.csv
args: >-
  one two
  three
labels:
  {note: more}
timeouts:
  ? run_s
  : 60
"""
JOB_TOML = b"""# a job
schema_version = "1.0"
job_id = 'fold'
image = "nexapod/folding:latest"
command = ["python", "run.py"]
tasks = 3
estimated_flops = 1.2e12
labels.team = "x"
args = \"\"\"one
two\"\"\"
env = {A = "1", B = 'two'}

[requirements]
gpu = true
ram_gb = 0x8

[[inputs]]
uri = "file:data/a.csv"
path = "a.csv"
"""


def jobs_yaml() -> tuple[Seed, ...]:
    return Seed(JOB_YAML), Seed(FIRST_EXAMPLE.encode()), Seed(json.dumps(SWEPT_JOB).encode())


def jobs_toml() -> tuple[Seed, ...]:
    return Seed(JOB_TOML), Seed(b'job_id = "a"\nimage = "b"\n')


def configs() -> tuple[Seed, ...]:
    some = b'name = "lab"\nlisten = ["/ip4/0.0.0.0/tcp/4001", "/dns4/example.org/tcp/1"]\nengine = "auto"\nslots = 2\n'
    return Seed(some), Seed(
        b"# nothing\ncpus_percent = 50\nram_percent = 10\ndisk_gb = 5\nlease_ms = 60_000\ngossip = false\n"
    )


def peer_books() -> tuple[Seed, ...]:
    entries = [
        {
            "addresses": [f"/ip4/192.0.2.{at}/tcp/4001/p2p/{peer_id(key.public)}"],
            "last_ok_ms": at,
            "failures": 0,
            "pinned": at == 1,
        }
        for at, key in enumerate(KEYS[:3])
    ]
    return (Seed(json.dumps({"version": 1, "peers": entries}).encode()),)


def keys() -> tuple[Seed, ...]:
    """One that is plain, and one that is encrypted: nobody is asked for its passphrase, so it is refused."""
    plain = b"nexapod-key-1\nplain\n" + KEY.seed.hex().encode() + b"\n"
    encrypted = b"nexapod-key-1\nargon2id-secretbox\n" + b"00" * 16 + b"\n" + b"11" * 72 + b"\n"
    return Seed(plain), Seed(encrypted, sound=False)


# --- names ------------------------------------------------------------------------------------------------------------
def addresses() -> tuple[Seed, ...]:
    peer = peer_id(KEY.public)
    hosts = ("/ip4/192.0.2.7", "/ip6/2001:db8::7", "/dns4/node.example.org", "/dns6/a", "/dns/a-b.c")
    return tuple(Seed(f"{host}/tcp/4001/p2p/{peer}".encode()) for host in hosts)


def peer_ids() -> tuple[Seed, ...]:
    return tuple(Seed(peer_id(key.public).encode()) for key in (KEY, NEXT, OTHER))


def references() -> tuple[Seed, ...]:
    texts = (
        "alpine",
        "a/b-c/d__e:1.0",
        "localhost:5000/x",
        "registry.example.org/a.b:t@sha256:" + "0" * 64,
        "x@sha256:" + "f" * 64,
    )
    return tuple(Seed(text.encode()) for text in texts)


# --- images and archives ----------------------------------------------------------------------------------------------
def image_configs() -> tuple[Seed, ...]:
    names = [f"sha256:{sha(str(at)).hex()}" for at in range(3)]
    return tuple(
        Seed(json.dumps({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": names[:count]}}).encode())
        for count in (1, 3)
    )


def archive(*, format: int = tarfile.PAX_FORMAT, prefix: str = "out") -> bytes:
    """A small archive with everything in it that may come out of a box, and some of what may not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, size in ((prefix, 0), (f"{prefix}/a.txt", 5), (f"{prefix}/sub/{'n' * 120}", 700), (f"{prefix}/é", 0)):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.REGTYPE if size or name.endswith("é") else tarfile.DIRTYPE
            entry.size = size
            tar.addfile(entry, io.BytesIO(bytes(size)))
    return unpadded(buffer.getvalue())


def unpadded(raw: bytes) -> bytes:
    """The archive with the two empty blocks it must end with, and none of those that fill its last record."""
    content = raw.rstrip(b"\0")
    return content.ljust(-(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, b"\0") + bytes(
        2 * tarfile.BLOCKSIZE
    )


def archives() -> tuple[Seed, ...]:
    plain = [archive(format=kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
    sparse = tarfile.TarInfo("out/s")
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "out/s",
        "GNU.sparse.realsize": "9",
    }
    sparse.size = 512
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(sparse, io.BytesIO(b"1\n0\n9\n".ljust(512, b"\0")))
    return (*map(Seed, plain), Seed(unpadded(buffer.getvalue()), sound=False))
