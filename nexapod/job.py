"""The job descriptor: what a person wrote, checked; and what travels, resolved.

Knows the rules between keys, the defaults, what this version can run, and the price of a task. Must never read a file,
a clock or a network: files are read by job_file.py, digests are found by whoever publishes.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, TypeAlias, cast

from msgspec import Meta, Struct

from nexapod.encoding import Wire, Worded, decode, encode
from nexapod.errors import Exit, LocalError
from nexapod.hashing import blob_id
from nexapod.job_faults import DescriptorFaults, Fault, nearest, shown
from nexapod.job_shapes import Faults, RelativePath, clean_text, refuse
from nexapod.job_table import (
    DESCRIPTOR,
    ENV_MAX,
    GB,
    GLOBS_MAX,
    INPUTS_MAX,
    LABELS_MAX,
    TOLERANCE_SCALE,
    WORD_CHARS_MAX,
    WORDS_MAX,
)
from nexapod.limits import DESCRIPTOR_BYTES_MAX, EXECUTIONS_MAX, TASKS_MAX
from nexapod.messages import Big, Count, Hash, Independence, Label, Mode, Name, Policy
from nexapod.units import AMOUNT_MAX, MICRO, micro_of

MODES = {"exact": Mode.EXACT, "exact-class": Mode.EXACT_CLASS, "tolerance": Mode.TOLERANCE, "checker": Mode.CHECKER}
MODES_RUN = (Mode.EXACT,)  # what this version compares itself; anything else is refused, never run as something else
ENGINES_RUN = ("docker",)
SCHEMES_RUN = ("file",)
NOT_RUN = {
    "matrix": "sweeps are not expanded by this version; use tasks, and NEXAPOD_TASK_INDEX in the program",
    "parameters": "sweeps are not expanded by this version; use tasks, and NEXAPOD_TASK_INDEX in the program",
    "after": "this version does not wait for other jobs; publish this one when they are settled",
    "checkpoint": "this version does not move half finished tasks",
    "retry": "this version does not repeat a task because of its exit code",
    "deadline": "this version keeps no deadlines; use timeouts.queue_s",
    "priority": "this version does not order a publisher's jobs",
    "placement": "this version does not choose nodes by name",
    "bounty": "this version takes no bounties",
    "redundancy.class": "this version does not pin a numerical class",
    "verify.files": "this version compares all outputs; narrow them with outputs",
    "timeouts.total_s": "this version has no limit for the whole job; use run_s and queue_s",
}
FLOPS_UNSAID = 10**12  # without an estimate a task is priced like this many operations: one credit at rate 1


class Needs(Worded, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one task needs. Empty text means any."""

    cpus_milli: Count = 1000
    ram_bytes: Big = GB
    disk_bytes: Big = GB
    gpus: Count = 0
    vram_bytes: Big = 0
    gpu_vendor: Name = ""
    arch: Name = ""


class Source(Struct, frozen=True):
    """One input as written: where it is, where the task finds it below /in, and its hash when the file pins it."""

    uri: str
    path: str
    sha256: str = ""


class Descriptor(Struct, frozen=True, kw_only=True):
    """A checked job file with every default filled in. Sizes in bytes, times in ms, tolerances in 1e-12."""

    job_id: str
    image: str
    type: str = "generic"
    engine: str = "docker"
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    sources: tuple[Source, ...] = ()
    outputs: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    tasks: int = 1
    estimated_flops: int = 0
    tier: int = 0
    needs: Needs = Needs()
    replicas: int = 2
    quorum: int = 2
    executions_max: int = 4
    independence: Independence = Independence.NODE
    policy: Policy = Policy.STRICT
    mode: Mode = Mode.EXACT
    rtol: int = 0
    atol: int = 0
    checker: str = ""
    run_ms: int = 3_600_000
    queue_ms: int = 86_400_000
    credit_rate_micro: int = MICRO
    retention_days: int = 30
    labels: tuple[tuple[str, str], ...] = ()
    asked: tuple[Fault, ...] = ()  # what the file asks for beyond this version, in the words of `unsupported`


Text: TypeAlias = Annotated[str, Meta(max_length=WORD_CHARS_MAX)]
Globs: TypeAlias = Annotated[tuple[Text, ...], Meta(max_length=GLOBS_MAX)]


class ResolvedInput(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One input below /in, by content."""

    path: Text
    sha256: Hash
    size: Big


class Resolved(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The descriptor as it travels: nothing left to look up, nothing that depends on who reads it.

    `estimated_flops` 0: not said. `rtol`, `atol` in 1e-12. `needs` is for one task, `run_ms` for one run.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    job_id: Label
    type: Label
    engine: Label
    image: Annotated[str, Meta(min_length=1, max_length=512)]
    image_digest: Hash
    command: Annotated[tuple[Text, ...], Meta(max_length=2 * WORDS_MAX)]
    env: Annotated[tuple[tuple[Text, Text], ...], Meta(max_length=ENV_MAX)]
    inputs: Annotated[tuple[ResolvedInput, ...], Meta(max_length=2 * INPUTS_MAX)]
    outputs: Globs
    volatile: Globs
    tasks: Annotated[int, Meta(ge=1, le=TASKS_MAX)]
    estimated_flops: Big
    credit_rate_micro: Big
    tier: Annotated[int, Meta(ge=0, le=2)]
    needs: Needs
    replicas: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    quorum: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    executions_max: Annotated[int, Meta(ge=1, le=EXECUTIONS_MAX)]
    mode: Mode
    independence: Independence
    policy: Policy
    rtol: Big
    atol: Big
    run_ms: Big
    queue_ms: Big
    retention_days: Count
    labels: Annotated[tuple[tuple[Text, Text], ...], Meta(max_length=LABELS_MAX)]

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: fields contradict each other, or a text could not have come out of `resolve`.
        """
        if not self.quorum <= self.replicas <= self.executions_max:
            raise ValueError("quorum, replicas and executions_max are out of order")
        paths = [item.path for item in self.inputs]
        if paths != sorted(set(paths)) or clashing(paths):
            raise ValueError("inputs are not sorted, or two share a path")
        faults: Faults = []
        for path in (*paths, *self.outputs, *self.volatile):
            RelativePath().check("", path, faults)
        texts = (*self.command, *(text for pair in (*self.env, *self.labels) for text in pair))
        if faults or not clean_text(self.image) or not all(clean_text(text, lines=True) for text in texts):
            raise ValueError("a path or text is not allowed")
        for pairs in (self.env, self.labels):
            names = [name for name, _ in pairs]
            if names != sorted(set(names)):
                raise ValueError("names are not sorted or not unique")
        if price_micro(self) * self.tasks * self.executions_max > AMOUNT_MAX:
            raise ValueError("the price is beyond what can be counted")


def parse(document: object, *, subject: str = "job descriptor") -> Descriptor:
    """Check a whole document (as read from JSON, YAML or TOML) and fill in the defaults.

    Raises:
        DescriptorFaults: with every fault found.
    """
    faults: Faults = []
    checked = DESCRIPTOR.check("", document, faults)
    # Rules between keys are tried on what is sound, so that one round of mending is enough.
    values = _values(DESCRIPTOR.sound(document) if faults else cast(dict[str, Any], checked), faults)
    if faults:
        raise DescriptorFaults(faults, subject=subject)
    return Descriptor(**values)


def unsupported(descriptor: Descriptor) -> list[Fault]:
    """What the descriptor asks for that this version does not do: publishing refuses it rather than ignore it."""
    faults = list(descriptor.asked)
    if descriptor.engine not in ENGINES_RUN:
        faults.append(Fault("engine", descriptor.engine, f"this version runs {', '.join(ENGINES_RUN)}"))
    if descriptor.mode not in MODES_RUN:
        name = next(word for word, mode in MODES.items() if mode == descriptor.mode)
        faults.append(Fault("verify.mode", name, "this version compares exact bytes only", "exact"))
    if descriptor.policy is not Policy.STRICT:
        faults.append(Fault("redundancy.policy", "adaptive", "this version repeats every task", "strict"))
    for source in descriptor.sources:
        scheme = source.uri.partition(":")[0]
        if scheme not in SCHEMES_RUN:
            reason = f"this version does not fetch {scheme}: addresses; put the file beside the descriptor"
            faults.append(Fault("inputs", shown(source.uri), reason))
    return faults


def resolve(descriptor: Descriptor, image_digest: bytes, inputs: Sequence[ResolvedInput]) -> Resolved:
    """The descriptor as it travels, with the image (32-byte config digest) and inputs pinned by content.

    Raises:
        LocalError: an input is missing or was not asked for, or the result is too large to travel.
    """
    wanted, found = {source.path for source in descriptor.sources}, {item.path for item in inputs}
    if wanted != found:
        odd = ", ".join(sorted(wanted ^ found)[:8])
        raise LocalError("the inputs do not match the descriptor", odd, "give every input exactly once", Exit.REFUSED)
    digests = {item.path: item.sha256.hex() for item in inputs}
    for source in descriptor.sources:
        if source.sha256 and digests[source.path] != source.sha256:
            raise LocalError(f"input {source.path} is not what the descriptor pins", f"sha256 {digests[source.path]}",
                             "fetch the right file, or correct sha256", Exit.REFUSED)  # fmt: skip
    shared = {
        name: getattr(descriptor, name) for name in Resolved.__struct_fields__ if name in Descriptor.__struct_fields__
    }
    resolved = Resolved(
        version=1, image_digest=image_digest, inputs=tuple(sorted(inputs, key=lambda item: item.path)), **shared
    )
    size = len(encode(resolved))
    if size > DESCRIPTOR_BYTES_MAX:
        raise LocalError(f"the job descriptor is too large: {size} bytes, at most {DESCRIPTOR_BYTES_MAX}",
                         "every node holds it in memory", "pack many inputs into one file", Exit.REFUSED)  # fmt: skip
    return resolved


def descriptor_hash(resolved: Resolved) -> bytes:
    """What an offer names: the id of the blob that holds the descriptor, so that any holder can hand it over."""
    return blob_id(encode(resolved))


def decode_resolved(raw: bytes) -> Resolved:
    """A descriptor received from a peer.

    Raises:
        NotCanonical: not the one encoding of a sound descriptor.
    """
    return decode(raw, Resolved, size_max=DESCRIPTOR_BYTES_MAX)


def price_micro(resolved: Resolved | Descriptor) -> int:
    """Fixed price of one task in micro-credits: credit_rate x estimated_flops / 10^12 credits, half to even.

    Raises:
        ValueError: more than the protocol can count.
    """
    flops = resolved.estimated_flops or FLOPS_UNSAID
    return micro_of(Decimal(f"{resolved.credit_rate_micro * flops}e-18"))  # exact: micro (10^-6) times 10^-12


def clashing(paths: Sequence[str]) -> str:
    """A path that is at once a file and a folder of another, or empty."""
    files = set(paths)
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                return "/".join(parts[:end])
    return ""


def _values(given: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """The fields of a Descriptor from checked keys; rules between keys add their faults."""
    plain = ("job_id", "type", "engine", "outputs", "volatile", "estimated_flops", "tier", "retention_days", "labels")
    values: dict[str, Any] = {name: given[name] for name in plain if name in given}
    values["image"] = _image(given, faults)
    values["command"] = (*_words("command", given, faults), *_words("args", given, faults))
    values["env"] = _env(given.get("env", ()), faults)
    values["tasks"] = _tasks(given, faults)
    values["sources"] = _sources(given, faults)
    values["needs"] = _needs(given.get("requirements", {}), faults)
    values["credit_rate_micro"] = given.get("credit_rate", MICRO)
    timeouts = given.get("timeouts", {})
    values["run_ms"] = timeouts.get("run_s", 3600) * 1000
    values["queue_ms"] = timeouts.get("queue_s", 86_400) * 1000
    values |= _redundancy(given.get("redundancy", {}), faults) | _verify(given, faults)
    values["asked"] = tuple(_asked(given))
    _check_price(given, values, faults)
    return values


def _image(given: dict[str, Any], faults: Faults) -> str:
    match given.get("image"), given.get("docker_image"):
        case str(), str() as other:
            refuse(faults, "image", other, "image and docker_image are the same key: give one of them")
        case (str() as image, None) | (None, str() as image):
            return image
        case _ if not any(fault.path in ("image", "docker_image") for fault in faults):
            refuse(faults, "docker_image", None, "is missing: say which container image runs")
    return ""


def _words(key: str, given: dict[str, Any], faults: Faults) -> tuple[str, ...]:
    value = given.get(key, ())
    if not isinstance(value, str):
        return tuple(value)
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        refuse(faults, key, value, f"cannot be split into words: {error}")
        return ()
    if not 1 <= len(words) <= WORDS_MAX:
        refuse(faults, key, value, f"must have 1 to {WORDS_MAX} words")
    return words


def _env(pairs: tuple[tuple[str, str], ...], faults: Faults) -> tuple[tuple[str, str], ...]:
    for name, value in pairs:
        if name.startswith("NEXAPOD_"):
            refuse(faults, f"env.{name}", value, "names beginning with NEXAPOD_ are set by the runtime")
    return pairs


def _tasks(given: dict[str, Any], faults: Faults) -> int:
    ways = [key for key in ("tasks", "matrix", "parameters") if key in given]
    if len(ways) > 1:
        refuse(faults, ways[1], None, f"{' and '.join(ways)} each say how many tasks there are: give one of them")
    return int(given.get("tasks", 1))


def _sources(given: dict[str, Any], faults: Faults) -> tuple[Source, ...]:
    uri = given.get("input_uri", "")
    start = uri if not uri or uri.endswith(("/", ":")) else uri + "/"
    sources = [Source((start or "file:") + path, path) for path in given.get("input_files", ())]
    if uri.startswith("file:"):
        _check_local("input_uri", uri.rstrip("/"), faults)
    for index, item in enumerate(given.get("inputs", ())):
        where, path = f"inputs[{index}]", item.get("path", "")
        if item["uri"].startswith("file:"):
            _check_local(f"{where}.uri", item["uri"], faults)
            path = path or item["uri"].removeprefix("file:")
        elif not path:
            refuse(faults, f"{where}.path", None, "is missing: say where the task finds it below /in")
            continue
        sources.append(Source(item["uri"], path, item.get("sha256", "")))
    paths = Counter(source.path for source in sources)
    for path in sorted(path for path, times in paths.items() if times > 1):
        refuse(faults, "inputs", path, "two inputs would be the same file below /in")
    if clash := clashing(tuple(paths)):
        refuse(faults, "inputs", clash, "would be a file and a folder below /in at once")
    return tuple(sources)


def _check_local(where: str, uri: str, faults: Faults) -> None:
    # A job file may come from a stranger: it must not be able to publish files from elsewhere on the reader's disk.
    quiet: Faults = []
    RelativePath().check("", uri.removeprefix("file:"), quiet)
    if quiet:
        refuse(faults, where, uri, "local inputs stand beside or below the descriptor: file:its/path")


def _needs(given: dict[str, Any], faults: Faults) -> Needs:
    gpus = given.get("gpus", 1 if given.get("gpu") else 0)
    if given.get("gpu") is False and gpus:
        refuse(faults, "requirements.gpus", gpus, "gpu is false, so no GPU can be asked for")
    if given.get("gpu") is True and not gpus:
        refuse(faults, "requirements.gpus", gpus, "gpu is true, so at least one GPU is needed")
    for key in ("vram_gb", "gpu_vendor"):
        if key in given and not gpus:
            refuse(
                faults,
                f"requirements.{key}",
                given[key],
                "says something about a GPU, but none is asked for",
                "gpus: 1",
            )
    sizes = {"cpus_milli": "cpus", "ram_bytes": "ram_gb", "disk_bytes": "disk_gb", "vram_bytes": "vram_gb"}
    values = {name: given[key] for name, key in sizes.items() if key in given}
    texts = {key: given[key] for key in ("gpu_vendor", "arch") if key in given}
    for key in ("cpus", "ram_gb"):
        if given.get(key) == 0:
            refuse(faults, f"requirements.{key}", 0, "must be more than nothing")
    return Needs(gpus=gpus, **values, **texts)


def _redundancy(given: dict[str, Any], faults: Faults) -> dict[str, Any]:
    quorum = given.get("quorum")
    replicas = given.get("replicas", max(2, quorum or 0))
    quorum = quorum or min(2, replicas)
    most = given.get("max", min(EXECUTIONS_MAX, replicas + 2))
    if quorum > replicas:
        refuse(
            faults,
            "redundancy.quorum",
            quorum,
            f"is more than replicas ({replicas}): it could never be reached at once",
        )
    if replicas > most:
        refuse(faults, "redundancy.max", most, f"is less than replicas ({replicas})")
    independence = Independence.OPERATOR if given.get("mode") == "operator" else Independence.NODE
    policy = Policy.ADAPTIVE if given.get("policy") == "adaptive" else Policy.STRICT
    return {
        "replicas": replicas,
        "quorum": quorum,
        "executions_max": most,
        "independence": independence,
        "policy": policy,
    }


def _verify(given: dict[str, Any], faults: Faults) -> dict[str, Any]:
    verify, short = given.get("verify", {}), given.get("tolerance", 0)
    mode = verify.get("mode", "tolerance" if short or verify.get("rtol") or verify.get("atol") else "exact")
    rtol, atol = verify.get("rtol", short), verify.get("atol", 0)
    if short and verify.get("rtol", short) != short:
        refuse(faults, "tolerance", short / TOLERANCE_SCALE, "says something else than verify.rtol: give one of them")
    if mode != "tolerance" and (rtol or atol):
        refuse(faults, "verify.mode", mode, "does not go with a tolerance", "tolerance")
    if mode == "tolerance" and not (rtol or atol):
        refuse(faults, "verify.mode", mode, "needs rtol or atol above 0")
    if mode == "checker" and "checker" not in verify:
        refuse(faults, "verify.checker", None, "is missing: say which image checks an output")
    if mode != "checker" and "checker" in verify:
        refuse(
            faults,
            "verify.checker",
            verify["checker"],
            "is used with verify mode checker only",
            nearest("checker", MODES),
        )
    return {"mode": MODES[mode], "rtol": rtol, "atol": atol, "checker": verify.get("checker", "")}


def _asked(given: dict[str, Any]) -> list[Fault]:
    found = []
    for path, reason in NOT_RUN.items():
        section, _, key = path.partition(".")
        value = given.get(section)
        if key and isinstance(value, dict):
            value = value.get(key)
        elif key:
            value = None
        if value is not None:
            found.append(Fault(path, shown(value), reason))
    return found


def _check_price(given: dict[str, Any], values: dict[str, Any], faults: Faults) -> None:
    product = values["credit_rate_micro"] * given.get("estimated_flops", FLOPS_UNSAID)
    if product * values["tasks"] * values["executions_max"] // 10**12 > AMOUNT_MAX:
        refuse(faults, "credit_rate", given.get("credit_rate", MICRO) / MICRO,
               "with estimated_flops and tasks gives a price beyond what can be counted")  # fmt: skip
