"""Every parser that reads what a stranger sends or hands over, as one table.

Knows for each parser: what it reads, which rejections it declares, what must hold of what it accepts, and valid inputs.
Must never know how inputs are mutated or how long a run takes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgpack

from bootstrap import bootstrap_file, manifest
from bootstrap.address import parse_address
from bootstrap.peerbook import read_book, write_book
from daemon.nodes import Nodes
from daemon.streams import RANGE_BYTES, frame_range, parse_answer, parse_length, parse_range
from dht.advert import labels_of, open_advert
from gossip.batch import decode_batch
from ledger.replica import Replica
from nexapod import encoding, limits
from nexapod.config import CONFIG_BYTES_MAX, load_config
from nexapod.errors import LocalError, PeerError, Unavailable
from nexapod.events import open_event
from nexapod.hashing import Tag
from nexapod.home import Home
from nexapod.identity import key_of_peer_id, peer_id, read_key
from nexapod.job import Descriptor, ResolvedInput, decode_resolved, parse, resolve
from nexapod.job_faults import DescriptorFaults
from nexapod.job_file import read_document
from nexapod.messages import Ask, Reply
from runtime.blobs import BlobStore
from runtime.collector import OutputsRefused, Selection, collect
from runtime.images import CONFIG_BYTES_MAX as IMAGE_CONFIG_BYTES_MAX
from runtime.images import NotAnImage, layers_of, verify
from runtime.outputs import manifest_of, parse_manifest, selected
from runtime.reference import NotAReference, parse_reference
from tests.fuzz import seeds
from tests.fuzz.mutation import Form, Seed
from tests.ledger.scribe import NETID as SCRIBE_NETID
from tests.ledger.scribe import Scribe, everything, walk
from tests.vectors.write import GENESIS, KEY, NETID, OTHER, OTHER_FEED

KIB = 1024
# What a person writes may be larger, and a parser in plain Python then takes longer: the bound in time is for these.
PERSONS_JSON_BYTES, PERSONS_YAML_BYTES, PERSONS_TOML_BYTES = 64 * KIB, 2 * KIB, 16 * KIB
TAR_BYTES = 64 * KIB

Seeds = Callable[[], tuple[Seed, ...]]


@dataclass(frozen=True)
class Parser:
    """One parser. `sound` says whether an accepted value is what was read; `large` are seeds at the protocol's bounds.

    `share` of the inputs asked for: a parser that takes a millisecond gets fewer.
    """

    name: str
    form: Form
    read: Callable[[bytes], Any]
    declared: tuple[type[Exception], ...]
    size_max: int
    seeds: Seeds
    large: Seeds = tuple
    sound: Callable[[bytes, Any], bool] = lambda raw, value: True
    share: float = 1.0


def all_parsers(folder: Path) -> dict[str, Parser]:
    """The table; `folder` is scratch, best in memory, for those that read files."""
    rows = (
        *_events(),
        *_messages(),
        *_notes(),
        *_manifests(),
        *_names(),
        *_files(folder),
        *_archives(folder),
        *_frames(),
    )
    return {row.name: row for row in rows}


def one_spelling(raw: bytes, _: Any) -> bool:
    """Whether another encoder than ours finds the same bytes for what was accepted."""
    return cast(bytes, msgpack.packb(msgpack.unpackb(raw, strict_map_key=False), use_bin_type=True)) == raw


def _text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A parser of text on bytes: what is no UTF-8 arrives as it would from a file name or an argument."""
    return lambda raw: read(raw.decode("utf-8", "surrogateescape"))


# --- events and messages ----------------------------------------------------------------------------------------------
def _events() -> tuple[Parser, ...]:
    size, wire = limits.EVENT_BYTES_MAX + 64, (PeerError,)
    owner, ann, bob = Scribe("owner"), Scribe("ann"), Scribe("bob")
    walk(owner, (ann, bob))
    ann.rotate()
    replica = Replica(SCRIBE_NETID)
    known = {event.raw for event in everything(owner, ann, bob)}
    replica.apply(replica.plan(everything(owner, ann, bob)))

    def planned() -> tuple[Seed, ...]:
        scribes = (owner, ann, bob)
        return tuple(
            seeds.wrapped(event.raw, seeds.resigned(Tag.EVENT, scribe.key, SCRIBE_NETID))
            for scribe in scribes
            for event in scribe.events
        )

    return (
        Parser(
            "event",
            Form.WIRE,
            lambda raw: open_event(raw, NETID),
            wire,
            size,
            seeds.events,
            seeds.large_events,
            lambda raw, event: event.raw == raw and one_spelling(raw, event),
        ),
        Parser(
            "genesis of a hello",
            Form.WIRE,
            lambda raw: Nodes(NETID, lambda: 0).introduce(raw, KEY.public),
            wire,
            size,
            lambda: (seeds.wrapped(GENESIS.raw, seeds.resigned(Tag.EVENT)),),
            sound=lambda raw, feed: feed == open_event(raw, NETID).id,
        ),
        Parser(
            "plan of an event",
            Form.WIRE,
            lambda raw: replica.plan([open_event(raw, SCRIBE_NETID)]),
            wire,
            size,
            planned,
            sound=lambda raw, plan: raw not in known or not plan.stored,
            share=0.2,
        ),
    )


def _messages() -> tuple[Parser, ...]:
    wire = (encoding.NotCanonical,)
    ask = functools.partial(encoding.decode, kind=cast(Any, Ask), size_max=limits.REQUEST_BYTES_MAX)
    reply = functools.partial(encoding.decode, kind=cast(Any, Reply), size_max=limits.REPLY_BYTES_MAX)
    return (
        Parser(
            "request", Form.WIRE, ask, wire, limits.REQUEST_BYTES_MAX + 64, seeds.asks, seeds.large_asks, one_spelling
        ),
        Parser(
            "reply",
            Form.WIRE,
            reply,
            wire,
            limits.REPLY_BYTES_MAX + 64,
            seeds.replies,
            seeds.large_replies,
            one_spelling,
        ),
        Parser(
            "gossip batch",
            Form.WIRE,
            decode_batch,
            wire,
            limits.GOSSIP_BYTES_MAX + 64,
            seeds.batches,
            seeds.large_batches,
            one_spelling,
        ),
        Parser(
            "unknown kind",
            Form.WIRE,
            lambda raw: encoding.decode_plain(raw, size_max=limits.EVENT_BYTES_MAX),
            wire,
            limits.EVENT_BYTES_MAX + 64,
            lambda: (Seed(encoding.encode((1, b"x", "é", (None, True, (2**40, ()))))),),
            sound=lambda raw, value: encoding.encode(value) == raw,
        ),
    )


def _notes() -> tuple[Parser, ...]:
    nodes = Nodes(NETID, lambda: 0)
    nodes.remember(KEY.public, GENESIS.id)
    nodes.remember(OTHER.public, OTHER_FEED)

    def advert(raw: bytes) -> object:
        found = open_advert(raw, NETID)
        labels_of(found)
        return nodes.learn_advert(raw)

    unknown = (PeerError, Unavailable)
    return (
        Parser(
            "advert",
            Form.WIRE,
            advert,
            (PeerError,),
            limits.ADVERT_BYTES_MAX + 64,
            seeds.adverts,
            seeds.large_adverts,
            one_spelling,
        ),
        Parser(
            "claim", Form.WIRE, nodes.open_claim, unknown, limits.CLAIM_BYTES_MAX + 64, seeds.claims, sound=one_spelling
        ),
        Parser(
            "assignment",
            Form.WIRE,
            nodes.open_assignment,
            unknown,
            limits.EVENT_BYTES_MAX + 64,
            seeds.assignments,
            seeds.large_assignments,
            one_spelling,
        ),
    )


def _manifests() -> tuple[Parser, ...]:
    wire = (PeerError,)
    return (
        Parser(
            "result manifest",
            Form.WIRE,
            parse_manifest,
            wire,
            limits.RESULT_BYTES_MAX + 64,
            seeds.results,
            seeds.large_results,
            lambda raw, result: manifest_of(*result) == raw,
        ),
        Parser(
            "resolved descriptor",
            Form.WIRE,
            decode_resolved,
            wire,
            limits.DESCRIPTOR_BYTES_MAX + 64,
            seeds.resolved,
            seeds.large_resolved,
            one_spelling,
        ),
        Parser(
            "network manifest",
            Form.WIRE,
            manifest.decode_manifest,
            wire,
            limits.MANIFEST_BYTES_MAX + 64,
            seeds.manifests,
            seeds.large_manifests,
            one_spelling,
        ),
    )


# --- names ------------------------------------------------------------------------------------------------------------
def _names() -> tuple[Parser, ...]:
    def matched(text: str) -> bool:
        glob, _, path = text.partition("\0")
        return selected(path, (glob,), (path,))

    return (
        Parser(
            "address",
            Form.LINE,
            _text(parse_address),
            (ValueError,),
            4 * KIB,
            seeds.addresses,
            sound=lambda raw, address: str(address).encode() == raw,
        ),
        Parser(
            "peer id",
            Form.LINE,
            _text(key_of_peer_id),
            (ValueError,),
            4 * KIB,
            seeds.peer_ids,
            sound=lambda raw, key: peer_id(key).encode() == raw,
        ),
        Parser(
            "image reference",
            Form.LINE,
            _text(parse_reference),
            (NotAReference,),
            4 * KIB,
            seeds.references,
            sound=lambda raw, found: str(found).removesuffix(":latest").encode() == raw.removesuffix(b":latest"),
        ),
        Parser(
            "output glob",
            Form.LINE,
            _text(matched),
            (),
            KIB,
            lambda: tuple(
                map(Seed, (b"*.csv\0a.csv", b"**/a?b*c/**\0x/axbyc/z/w", b"/out/log/\0log/a", b"a*b*c*d\0abcd"))
            ),
        ),
        Parser(
            "image configuration",
            Form.JSON,
            layers_of,
            (NotAnImage,),
            IMAGE_CONFIG_BYTES_MAX + 64,
            seeds.image_configs,
            sound=lambda raw, layers: all(len(layer) == 32 for layer in layers),
        ),
    )


# --- files ------------------------------------------------------------------------------------------------------------
def _files(folder: Path) -> tuple[Parser, ...]:
    home = Home(config=folder, data=folder, state=folder, run=folder, together=True)
    book = home.peerbook_file
    faults: tuple[type[Exception], ...] = (LocalError, DescriptorFaults)

    def same_book(raw: bytes, found: Any) -> bool:
        write_book(book, found)
        return read_book(book) == found

    def job(name: str, form: Form, size: int, of: Seeds, large: Seeds = tuple, share: float = 0.3) -> Parser:
        path = folder / name
        read = _filed(path, lambda: parse(read_document(path), subject=path.name))
        return Parser(f"job file as {form.value}", form, read, faults, size, of, large, _travels, share)

    bootstrap = bootstrap_file.read_bootstrap
    return (
        job("job.json", Form.JSON, PERSONS_JSON_BYTES, seeds.jobs_json, seeds.large_jobs_json),
        job("job.yaml", Form.YAML, PERSONS_YAML_BYTES, seeds.jobs_yaml, share=0.03),
        job("job.toml", Form.TOML, PERSONS_TOML_BYTES, seeds.jobs_toml, share=0.3),
        Parser(
            "bootstrap file",
            Form.JSON,
            bootstrap,
            (DescriptorFaults,),
            bootstrap_file.FILE_BYTES_MAX + 64,
            seeds.bootstraps,
            seeds.large_bootstraps,
            lambda raw, found: bootstrap(found.text()) == found,
            share=0.3,
        ),
        Parser(
            "peer book",
            Form.JSON,
            _filed(book, lambda: read_book(book)),
            (),
            PERSONS_JSON_BYTES,
            seeds.peer_books,
            sound=same_book,
            share=0.1,
        ),
        Parser(
            "key file",
            Form.LINE,
            _filed(home.key_file, lambda: read_key(home.key_file), mode=0o600),
            (LocalError,),
            8 * KIB,
            seeds.keys,
            sound=lambda raw, key: key.seed.hex().encode() in b"".join(raw.lower().split()),
        ),
        Parser(
            "config.toml",
            Form.TOML,
            _filed(home.config_file, lambda: load_config(home, {})),
            (DescriptorFaults,),
            CONFIG_BYTES_MAX + 64,
            seeds.configs,
            share=0.3,
        ),
    )


def _filed(path: Path, read: Callable[[], Any], mode: int = 0o644) -> Callable[[bytes], Any]:
    """A parser of a file on bytes."""

    def write_and_read(raw: bytes) -> Any:
        if not path.exists():
            path.touch(mode)
        path.write_bytes(raw)
        return read()

    return write_and_read


def _travels(_: bytes, job: Descriptor) -> bool:
    """Whether what was accepted can be resolved into what every worker accepts, or is said to be too large for that."""
    try:
        found = resolve(
            job,
            bytes(32),
            [ResolvedInput(source.path, bytes.fromhex(source.sha256 or "0" * 64), 1) for source in job.sources],
        )
    except LocalError as error:
        return "travel" in error.what or "large" in error.what
    return decode_resolved(encoding.encode(found)) == found


# --- archives ---------------------------------------------------------------------------------------------------------
class _OneLayer:
    """A blob store that holds one image of one layer, whose content is whatever was written last."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "layer"
        self._config = seeds.image_configs()[0].raw

    def write(self, raw: bytes) -> "_OneLayer":
        self._path.write_bytes(raw)
        return self

    def read(self, sha: bytes, offset: int = 0, length: int | None = None) -> bytes:
        return self._config

    def size(self, sha: bytes) -> int:
        return self._path.stat().st_size

    def path(self, sha: bytes) -> Path:
        return self._path


def _archives(folder: Path) -> tuple[Parser, ...]:
    made, layer = functools.cache(lambda: BlobStore(folder / "blobs", 8 * KIB * KIB)), _OneLayer(folder)
    selection = Selection("out", (), ("log/",), KIB * KIB)

    def collected(raw: bytes) -> Any:
        store = made()
        try:
            return collect([raw], selection, 0, store)
        except OutputsRefused:
            assert store.total_bytes == 0, "something of a refused archive was kept"
            raise

    def kept(_: bytes, found: Any) -> bool:
        store = made()
        ids = {file.sha256: file.size for file in found.files} | {found.root: len(found.manifest)}
        sound = parse_manifest(found.manifest) == (0, found.files) and all(
            store.size(sha) == size for sha, size in ids.items()
        )
        for sha in ids:
            store.remove(sha)
        return sound and store.total_bytes == 0

    return (
        Parser(
            "archive of outputs",
            Form.TAR,
            collected,
            (OutputsRefused,),
            TAR_BYTES,
            seeds.archives,
            sound=kept,
            share=0.1,
        ),
        Parser(
            "layer of an image",
            Form.TAR,
            lambda raw: verify(bytes(32), cast(BlobStore, layer.write(raw))),
            (NotAnImage,),
            TAR_BYTES,
            seeds.archives,
            share=0.2,
        ),
    )


# --- frames -----------------------------------------------------------------------------------------------------------
def _frames() -> tuple[Parser, ...]:
    declared = (PeerError,)

    def frame() -> tuple[Seed, ...]:
        return Seed(bytes(40)), Seed(b"\0\0\x04\0"), Seed(b"\0\1")

    return (
        Parser(
            "frame: length",
            Form.BYTES,
            lambda raw: parse_length(raw[:4].ljust(4, b"\0"), bytes_max=limits.REQUEST_BYTES_MAX),
            declared,
            64,
            frame,
            sound=lambda raw, length: 0 <= length <= limits.REQUEST_BYTES_MAX,
        ),
        Parser(
            "frame: answer",
            Form.BYTES,
            lambda raw: parse_answer(raw[:1].ljust(1, b"\0")[0]),
            declared,
            64,
            frame,
            sound=lambda raw, answer: bytes([answer]) == raw[:1].ljust(1, b"\0"),
        ),
        Parser(
            "frame: range",
            Form.BYTES,
            lambda raw: parse_range(raw.ljust(RANGE_BYTES, b"\0")[:RANGE_BYTES]),
            (),
            64,
            frame,
            sound=lambda raw, found: frame_range(*found) == raw.ljust(RANGE_BYTES, b"\0")[:RANGE_BYTES],
        ),
    )
