"""The table of every key a job descriptor may have: one source for the check and for the published JSON Schema.

Knows keys, shapes and ranges. Must never know rules between keys (job.py) nor what this version can run (job.py).
"""

import json

from nexapod.job_shapes import (
    Either,
    Field,
    Flag,
    ListOf,
    Named,
    Plain,
    Record,
    RelativePath,
    Scaled,
    Schema,
    Text,
    Whole,
)
from nexapod.limits import EXECUTIONS_MAX, NAME_CHARS_MAX, TASKS_MAX
from nexapod.units import MICRO

GB = 10**9  # sizes people write are decimal gigabytes
TOLERANCE_SCALE = 10**12  # rtol and atol travel as whole multiples of 1e-12
WHOLE_MAX = 2**63 - 1  # the largest number the canonical encoding carries
SECONDS_MAX = 30 * 86_400
WORDS_MAX = 256  # words of a command
WORD_CHARS_MAX = 4096
ENV_MAX = 64
GLOBS_MAX = 64
INPUTS_MAX = 1024
LABELS_MAX = 32

NAME = Text(
    NAME_CHARS_MAX,
    r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "must be letters, digits, dot, dash and underscore, beginning with a letter or digit",
)
IMAGE = Text(
    512,
    r"[a-z0-9]+(?:[._:/@-]+[A-Za-z0-9]+)*",
    "must be an image reference such as name:tag or name@sha256:...",
)
GLOB = RelativePath()
HEX32 = Text(64, r"[0-9a-f]{64}", "must be 64 lowercase hexadecimal digits")
URI = Text(
    2048,
    r"(?:file|https|s3|ipfs|nexapod):[^\s\x00-\x1f]+",
    "must begin with file:, https:, s3:, ipfs: or nexapod: (a file beside the descriptor is file:its/path)",
)
ENV_NAME = Text(128, r"[A-Za-z_][A-Za-z0-9_]*", "must be letters, digits and underscore")
WORDS = Either(
    (Text(WORD_CHARS_MAX, lines=True), ListOf(Text(WORD_CHARS_MAX, min_chars=0, lines=True), WORDS_MAX, min_items=1))
)
SECONDS = Whole(1, SECONDS_MAX)
ARCH = Text(16, choices=("x86_64", "aarch64"), aliases={"amd64": "x86_64", "arm64": "aarch64"})

REQUIREMENTS = Record(
    (
        Field("gpu", Flag(), "needs a GPU; the same as gpus: 1"),
        Field("cpus", Scaled(0, 4096, 1000), "CPU cores, a thousandth at the finest (default 1)"),
        Field("ram_gb", Scaled(0, 1_000_000, GB), "memory in gigabytes of 10^9 bytes (default 1)"),
        Field("disk_gb", Scaled(0, 1_000_000, GB), "room for outputs in gigabytes of 10^9 bytes (default 1)"),
        Field("gpus", Whole(0, 64), "number of GPUs (default 0)"),
        Field("vram_gb", Scaled(0, 10_000, GB), "memory of each GPU in gigabytes of 10^9 bytes"),
        Field("gpu_vendor", Text(16, choices=("nvidia", "amd", "intel", "apple")), "maker of the GPU"),
        Field("arch", ARCH, "processor architecture (default: that of the image)"),
    )
)

INPUT = Record(
    (
        Field("uri", URI, "where the bytes are", required=True),
        Field("sha256", HEX32, "what the bytes must hash to"),
        Field("path", RelativePath(), "where the task finds them below /in (default: the path of a file: address)"),
    )
)

REDUNDANCY = Record(
    (
        Field("replicas", Whole(1, EXECUTIONS_MAX), "independent executions asked for at first (default 2)"),
        Field("quorum", Whole(1, EXECUTIONS_MAX), "equal results needed (default: as many as replicas, at most 2)"),
        Field(
            "max", Whole(1, EXECUTIONS_MAX), "most executions of one task before it is disputed (default replicas + 2)"
        ),
        Field("mode", Text(16, choices=("node", "operator")), "what two executions must not share"),
        Field("policy", Text(16, choices=("strict", "adaptive")), "strict repeats every task (default)"),
        Field("class", Text(NAME_CHARS_MAX), "numerical class all executions must run in"),
    )
)

VERIFY = Record(
    (
        Field(
            "mode", Text(16, choices=("exact", "exact-class", "tolerance", "checker")), "when two results are the same"
        ),
        Field("rtol", Scaled(0, 1, TOLERANCE_SCALE), "relative tolerance"),
        Field("atol", Scaled(0, 1_000_000, TOLERANCE_SCALE), "absolute tolerance"),
        Field("files", ListOf(GLOB, GLOBS_MAX, unique=True), "outputs that are compared (default: all)"),
        Field("checker", IMAGE, "image of the program that accepts or rejects one output"),
    )
)

TIMEOUTS = Record(
    (
        Field("run_s", SECONDS, "longest run of one task in seconds (default 3600)"),
        Field("queue_s", SECONDS, "longest wait for a machine in seconds (default 86400)"),
        Field("total_s", SECONDS, "longest life of the whole job in seconds"),
    )
)

RANGE = Record(
    (
        Field("start", Plain(), "first value", required=True),
        Field("stop", Plain(), "end, itself not included", required=True),
        Field("step", Plain(), "distance between values (default 1)"),
    )
)
SWEEP = Named(ENV_NAME, Either((RANGE, ListOf(Plain(), TASKS_MAX, min_items=1))), 32)

DESCRIPTOR = Record(
    (
        Field("schema_version", Text(8, choices=("1.0",)), "version of this format (default 1.0)"),
        Field("job_id", NAME, "the publisher's own label of the job", required=True),
        Field("type", NAME, "what kind of science it is, for people (default generic)"),
        Field(
            "input_files",
            ListOf(RelativePath(), INPUTS_MAX, unique=True),
            "inputs by path, below input_uri or the descriptor",
        ),
        Field("input_uri", URI, "where input_files are (default: beside the descriptor)"),
        Field("inputs", ListOf(INPUT, INPUTS_MAX), "inputs with an address of their own"),
        Field("docker_image", IMAGE, "container image"),
        Field("image", IMAGE, "container image; another name of docker_image"),
        Field("engine", Text(16, choices=("docker", "wasm")), "what runs the image (default docker)"),
        Field(
            "command", WORDS, "what to run: a list of words, or one line split as a shell would (default: the image's)"
        ),
        Field("args", WORDS, "words added to the command"),
        Field(
            "env",
            Named(ENV_NAME, Text(WORD_CHARS_MAX, min_chars=0, lines=True), ENV_MAX),
            "environment of the task; NEXAPOD_ names are taken",
        ),
        Field("tasks", Whole(1, TASKS_MAX), "number of tasks (default 1); each finds its index in NEXAPOD_TASK_INDEX"),
        Field("matrix", SWEEP, "one task for every combination of these values"),
        Field(
            "parameters",
            Either((RelativePath(), ListOf(Named(ENV_NAME, Plain(), 32), TASKS_MAX, min_items=1))),
            "one task for every entry of this list, or row of this CSV file",
        ),
        Field("after", ListOf(NAME, 64, unique=True), "jobs that must be settled before this one"),
        Field("estimated_flops", Whole(1, WHOLE_MAX), "floating point operations of one task"),
        Field("tier", Whole(0, 2), "least machine: 0 CPU, 1 consumer GPU, 2 data centre (default 0)"),
        Field("requirements", REQUIREMENTS, "what one task needs"),
        Field("outputs", ListOf(GLOB, GLOBS_MAX, unique=True), "files below /out that are the result (default: all)"),
        Field(
            "volatile",
            ListOf(GLOB, GLOBS_MAX, unique=True),
            "files below /out that may differ between executions: dropped",
        ),
        Field("redundancy", REDUNDANCY, "how often a task is run by others"),
        Field("verify", VERIFY, "when two results count as the same"),
        Field(
            "tolerance", Scaled(0, 1, TOLERANCE_SCALE), "short for verify mode tolerance with this rtol; 0 means exact"
        ),
        Field("timeouts", TIMEOUTS, "how long things may take"),
        Field(
            "retry",
            Record((Field("max", Whole(0, 16), "times"), Field("on_exit", ListOf(Whole(0, 255), 256), "exit codes"))),
            "run a task again after these exit codes",
        ),
        Field(
            "checkpoint",
            Record((Field("path", RelativePath(), "folder", required=True), Field("exit_code", Whole(1, 255), "code"))),
            "how a task stops half way and goes on elsewhere",
        ),
        Field(
            "deadline",
            Text(
                40,
                r"\d{4}-\d\d-\d\d(?:[T ][0-9:.]+(?:Z|[+-]\d\d:\d\d)?)?",
                "must be a date such as 2031-05-01T12:00:00Z",
            ),
            "when the results are wanted",
        ),
        Field("priority", Whole(0, 100), "order among the publisher's own jobs"),
        Field("network", Text(16, choices=("none",)), "tasks never reach a network"),
        Field("labels", Named(NAME, Text(256, min_chars=0), LABELS_MAX), "free names and values for the publisher"),
        Field(
            "placement",
            Record(
                (
                    Field("group", NAME, "group"),
                    Field("peers", ListOf(NAME, 256), "only these"),
                    Field("deny", ListOf(NAME, 256), "never these"),
                )
            ),
            "which nodes may run it",
        ),
        Field("bounty", Scaled(0, 1_000_000_000, MICRO), "credits a sponsor adds"),
        Field("credit_rate", Scaled(0, 1_000_000, MICRO), "credits for 10^12 floating point operations (default 1)"),
        Field("retention_days", Whole(1, 3650), "days the results are kept (default 30)"),
    )
)


def job_schema() -> Schema:
    """The JSON Schema of a job file; rules between keys are told by `nexapod publish --dry-run`."""
    head: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NEXAPod job descriptor, version 1.0",
    }
    one_image: Schema = {"oneOf": [{"required": ["docker_image"]}, {"required": ["image"]}]}
    return head | DESCRIPTOR.schema() | one_image


def job_schema_text() -> str:
    """The content of docs/job.schema.json.

    Written by: python -P -c 'import nexapod.job_table as table; print(table.job_schema_text(), end="")'
    """
    return json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
