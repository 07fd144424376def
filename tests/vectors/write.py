"""Golden vectors: the exact bytes of every format that is signed, hashed or handed from person to person.

Run once per file, from the root of the repository: python -P -m tests.vectors.write. A file that is there is never
written again: if a format has to change, its tag gets a new number and new vectors stand beside the old ones.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bootstrap.address import PeerAddress
from bootstrap.bootstrap_file import new_bootstrap
from bootstrap.manifest import feed_of_member, genesis_manifest, netid
from dht.advert import blob_key, bucket_key, record_key
from ledger.verdict import commit_digest, seed_commitment
from nexapod.encoding import encode
from nexapod.events import Event, make_event, make_genesis, sign_note
from nexapod.hashing import Tag, blob_id, merkle_root, tagged
from nexapod.identity import Key, next_key_digest, peer_id
from nexapod.job import Resolved, ResolvedInput, descriptor_hash, parse, price_micro, resolve
from nexapod.messages import (
    Ack,
    AckEntry,
    Advert,
    Assignment,
    Attest,
    Burn,
    Checkpoint,
    Claim,
    Close,
    Commit,
    CommitEntry,
    EventData,
    Gpu,
    Hidden,
    Independence,
    Lock,
    Mode,
    Offer,
    Opening,
    Pay,
    Policy,
    Profile,
    Release,
    Report,
    Reveal,
    Rotate,
    Seal,
    SealEntry,
    Settle,
    Settlement,
    Steward,
    Verdict,
    Void,
    Voided,
    Vouch,
)
from runtime.environment import task_seed
from runtime.outputs import manifest_of, result_root
from runtime.task import OutputFile
from tests.nexapod.test_job_table import FIRST_EXAMPLE

FOLDER = Path(__file__).parent
KEY, NEXT, OTHER = (Key.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
MANIFEST = genesis_manifest("lab", KEY.public, next_key_digest(NEXT.public), node_name="first", note="vectors")
NETID = netid(MANIFEST)
GENESIS = make_genesis(KEY, NETID, next_key_digest(NEXT.public))
OTHER_FEED = make_genesis(OTHER, NETID, next_key_digest(NEXT.public)).id
TS = 1_700_000_000_123  # milliseconds since 1970


def sha(text: str) -> bytes:
    """A hash to stand for something that is not there."""
    return blob_id(text.encode())


OFFER = Offer(
    "fold_ensemble_v1", sha("descriptor"), 3, 1_200_000, 2, 2, 4, Mode.EXACT, Independence.NODE, Policy.STRICT,
    None, 14_400_000, seed_commitment(sha("seed")), OTHER_FEED,
)  # fmt: skip
OFFER_ID = sha("offer")
HIDDEN = Hidden(OFFER_ID, 2, 1, OTHER_FEED, "x86-64-v3", 10**12, sha("root"), b"n" * 16)
AGREES = Opening(sha("commit 1"), b"n" * 16, "x86-64-v3", 10**12, None, 1_200_000)
DIFFERS = Opening(sha("commit 2"), b"m" * 16, "x86-64-v4", 2**40, sha("another root"), 0)

DATA: tuple[EventData, ...] = (
    Rotate(NEXT.public, next_key_digest(OTHER.public)),
    Vouch(OTHER_FEED, "our second machine, Zürich"),
    OFFER,
    Steward(OFFER_ID),
    Commit(OFFER_ID, sha("assignment"), (CommitEntry(2, 1, commit_digest(NETID, HIDDEN)),)),
    Seal(OFFER_ID, (SealEntry(2, 1, (sha("commit 1"), sha("commit 2"))),)),
    Settle(OFFER_ID, (Settlement(2, sha("root"), (AGREES, DIFFERS)),)),
    Void(OFFER_ID, (Voided(0, Verdict.DISPUTED, "four results, none twice", (DIFFERS,)),)),
    Close(OFFER_ID, sha("seed")),
    Reveal(OFFER_ID, 2, AGREES),
    Attest(OFFER_ID, 2, (sha("root"), sha("another root"))),
    Pay(OTHER_FEED, GENESIS.id, 2**40),
    Lock(OFFER_ID, GENESIS.id, 65_536),
    Release(sha("lock"), None),
    Burn(GENESIS.id, 255),
    Ack((AckEntry(OTHER_FEED, 256, sha("head")),)),
    Checkpoint(sha("frontier"), sha("state"), 65_536),
    Report(OTHER_FEED, 1, "went away"),
)


def events() -> dict[str, Any]:
    """One signed event of every kind, each after the one before it in one feed."""
    made: list[Event] = [GENESIS]
    for data in DATA:
        last = made[-1]
        # The ts are no multiples of anything, so that integers of every length occur.
        event = make_event(
            KEY, NETID, feed=GENESIS.id, seq=last.seq + 1, prev=last.id, ts=TS + 999 * last.seq, data=data
        )
        made.append(event)
    return {
        "netid": NETID.hex(),
        "seed": KEY.seed.hex(),
        "public": KEY.public.hex(),
        "feed": GENESIS.id.hex(),
        "events": [
            {"kind": event.kind, "name": type(event.data).__name__, "id": event.id.hex(), "raw": event.raw.hex()}
            for event in made
        ],
    }


def network() -> dict[str, Any]:
    """The manifest of a network of one, the ids that follow from it, and how a key is named."""
    return {
        "seed": KEY.seed.hex(),
        "public": KEY.public.hex(),
        "peer_id": peer_id(KEY.public),
        "next_public": NEXT.public.hex(),
        "next_key_digest": next_key_digest(NEXT.public).hex(),
        "manifest": encode(MANIFEST).hex(),
        "netid": NETID.hex(),
        "genesis": GENESIS.raw.hex(),
        "feed": feed_of_member(MANIFEST, MANIFEST.members[0]).hex(),
    }


def notes() -> dict[str, Any]:
    """Signed notes outside the ledger."""
    profile = Profile(16, 64 * 10**9, 10**12, 10**11, "x86-64-v3+sm90-550.54", (Gpu("nvidia", "H200", 141 * 10**9),))
    addresses = ("/ip4/192.0.2.7/tcp/4001", "/dns4/node.example.org/tcp/4001")
    advert = Advert(KEY.public, GENESIS.id, TS, 3_600_000, "first", addresses, ("docker",), 2, 4, profile)
    claim = Claim(GENESIS.id, "x86-64-v3", 4, 7, 120_000, None)
    own_claim = Claim(GENESIS.id, "x86-64-v3", 1, 8, 120_000, OFFER_ID)
    assignment = Assignment(GENESIS.id, OTHER_FEED, OFFER_ID, 1, 60_000, (0, 2, 9_999))
    return {
        "netid": NETID.hex(),
        "public": KEY.public.hex(),
        "advert": sign_note(KEY, Tag.ADVERT, NETID, advert).hex(),
        "claim of capacity": sign_note(KEY, Tag.CLAIM, NETID, claim).hex(),
        "claim of one offer": sign_note(KEY, Tag.CLAIM, NETID, own_claim).hex(),
        "assignment": sign_note(KEY, Tag.ASSIGNMENT, NETID, assignment).hex(),
    }


def hashes() -> dict[str, Any]:
    """Every tag over the same bytes, and the digests that are made of fixed parts."""
    return {
        "input": b"abc".hex(),
        "tagged": {str(tag): tagged(tag, b"abc").hex() for tag in Tag},
        "merkle": {str(count): merkle_root([bytes([leaf]) for leaf in range(count)]).hex() for count in range(8)},
        "hidden": encode(HIDDEN).hex(),
        "commit digest": commit_digest(NETID, HIDDEN).hex(),
        "seed commitment": seed_commitment(sha("seed")).hex(),
        "netid": NETID.hex(),
        "record key": record_key(NETID, KEY.public),
        "bucket key": bucket_key(NETID, "gpu=nvidia").hex(),
        "blob key": blob_key(NETID, sha("blob")).hex(),
    }


def first_job() -> Resolved:
    """The first published example, with stand-ins for its image and inputs."""
    inputs = [ResolvedInput(name, sha(name), size) for name, size in (("input1.fasta", 300), ("params.json", 70_000))]
    return resolve(parse(json.loads(FIRST_EXAMPLE)), sha("image"), inputs)


def job() -> dict[str, Any]:
    """The first published example as it travels, and what follows from it."""
    resolved = first_job()
    digest = descriptor_hash(resolved)
    return {
        "file": FIRST_EXAMPLE,
        "resolved": encode(resolved).hex(),
        "descriptor_hash": digest.hex(),
        "price_micro": price_micro(resolved),
        "task_seeds": [task_seed(digest, index) for index in (0, 1, 9_999)],
    }


def bootstrap_file() -> dict[str, Any]:
    """A bootstrap file of two peers, signed by a member and a stranger."""
    peers = tuple(
        PeerAddress(f"/ip4/192.0.2.{number}/tcp/4001", key.public, peer_id(key.public))
        for number, key in ((1, KEY), (3, OTHER))
    )
    made = new_bootstrap(MANIFEST, peers).signed(KEY).signed(OTHER)
    return {"text": made.text(), "digest": made.digest().hex()}


def result() -> dict[str, Any]:
    """The manifest of a result and its root."""
    files = [OutputFile(path, len(path), sha(path)) for path in ("scores.csv", "a/b/model.pdb", "é.txt", "Z", "empty")]
    raw = manifest_of(0, files)
    return {"manifest": raw.hex(), "root": result_root(raw).hex(), "failed": manifest_of(137, []).hex()}


VECTORS: dict[str, Callable[[], dict[str, Any]]] = {
    "events": events,
    "network": network,
    "notes": notes,
    "hashes": hashes,
    "job": job,
    "bootstrap": bootstrap_file,
    "result": result,
}


def text_of(name: str) -> str:
    """What the file of this name must say, to the byte."""
    return json.dumps({"about": VECTORS[name].__doc__} | VECTORS[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files that are not there yet."""
    there = [name for name in VECTORS if (FOLDER / f"{name}.json").exists()]
    for name in sorted(set(VECTORS) - set(there)):
        with (FOLDER / f"{name}.json").open("x", encoding="utf-8") as file:
            file.write(text_of(name))
        print(f"wrote {name}.json")
    for name in there:
        print(f"{name}.json is there and stays as it is", file=sys.stderr)
    return 1 if there else 0


if __name__ == "__main__":
    sys.exit(main())
