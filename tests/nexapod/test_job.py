"""The job descriptor: what is accepted, what every fault reads like, what travels, what a task costs."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexapod.encoding import NotCanonical, encode
from nexapod.errors import Exit, LocalError
from nexapod.job import (
    Resolved,
    ResolvedInput,
    decode_resolved,
    descriptor_hash,
    parse,
    price_micro,
    resolve,
    unsupported,
)
from nexapod.job_faults import DescriptorFaults, Fault
from nexapod.job_table import DESCRIPTOR
from nexapod.messages import Mode
from tests.nexapod.test_job_table import FIRST_EXAMPLE

DIGEST = bytes(range(32))


def job(**fields: Any) -> dict[str, Any]:
    return {"job_id": "j", "image": "x/y:1"} | fields


def faults_of(document: object) -> dict[str, Fault]:
    with pytest.raises(DescriptorFaults) as caught:
        parse(document)
    assert caught.value.exit_code == Exit.USAGE
    return {fault.path: fault for fault in caught.value.faults}


def test_the_first_published_example_is_accepted_unchanged() -> None:
    descriptor = parse(json.loads(FIRST_EXAMPLE))
    assert descriptor.estimated_flops == 1_200_000_000_000
    assert descriptor.needs.gpus == 1
    assert descriptor.needs.ram_bytes == 8 * 10**9
    assert (descriptor.mode, descriptor.rtol) == (Mode.TOLERANCE, 10**10)
    assert [source.uri for source in descriptor.sources] == [
        "s3://nexapod-inputs/fold_ensemble_v1/input1.fasta",
        "s3://nexapod-inputs/fold_ensemble_v1/params.json",
    ]
    assert price_micro(descriptor) == 1_200_000


def test_what_this_version_cannot_do_is_refused_with_a_reason_each() -> None:
    descriptor = parse(json.loads(FIRST_EXAMPLE) | {"after": ["other"], "timeouts": {"total_s": 5}})
    assert {fault.path for fault in unsupported(descriptor)} == {"after", "timeouts.total_s", "verify.mode", "inputs"}
    assert unsupported(parse(job(input_files=["a.txt"], tolerance=0))) == []


def test_every_fault_is_told_at_once_with_the_nearest_key() -> None:
    faults = faults_of(
        {
            "job_idd": "j",
            "tasks": 0,
            "image": "A B",
            "redundancy": {"replicas": 2, "quorum": 3, "qurum": 1},
            "input_files": ["../x", "/etc/passwd", "a//b", "ok", "ok"],
            "estimated_flops": float("nan"),
            "requirements": {"gpu": False, "gpus": 1},
            "verify": {"mode": "exact", "rtol": 0.1},
        }
    )
    assert faults["job_idd"].suggestion == "job_id"
    assert faults["redundancy.qurum"].suggestion == "quorum"
    assert {"job_id", "tasks", "image", "redundancy.quorum", "estimated_flops", "requirements.gpus"} <= faults.keys()
    assert {"input_files[0]", "input_files[1]", "input_files[2]", "input_files[4]", "verify.mode"} <= faults.keys()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tasks": 2, "matrix": {"A": [1, 2]}}, "matrix"),
        ({"matrix": {"A": {"start": 1}}}, "matrix.A"),
        ({"matrix": {"A": {"start": 1, "stop": 2, "stepp": 1}}}, "matrix.A"),
        ({"redundancy": {"replicas": 4, "max": 3}}, "redundancy.max"),
        ({"docker_image": "a:1"}, "image"),
        ({"env": {"NEXAPOD_SEED": "1"}}, "env.NEXAPOD_SEED"),
        ({"env": {"A=B": "1"}}, "env.A=B"),
        ({"command": "echo 'unclosed"}, "command"),
        ({"inputs": [{"uri": "https://example.org/x"}]}, "inputs[0].path"),
        ({"inputs": [{"uri": "file:/home/someone/.ssh/id_ed25519", "path": "x"}]}, "inputs[0].uri"),
        ({"inputs": [{"uri": "file:../x"}]}, "inputs[0].uri"),
        ({"input_files": ["a", "a/b"]}, "inputs"),
        ({"input_files": ["a"], "inputs": [{"uri": "file:b", "path": "a"}]}, "inputs"),
        ({"tolerance": 0.1, "verify": {"mode": "exact"}}, "verify.mode"),
        ({"verify": {"mode": "tolerance"}}, "verify.mode"),
        ({"verify": {"mode": "checker"}}, "verify.checker"),
        ({"tolerance": 1e-13}, "tolerance"),
        ({"tolerance": True}, "tolerance"),
        ({"estimated_flops": 0.5}, "estimated_flops"),
        ({"estimated_flops": 9e18, "credit_rate": 1000000, "tasks": 10000}, "credit_rate"),
        ({"requirements": {"vram_gb": 8}}, "requirements.vram_gb"),
        ({"network": "bridge"}, "network"),
        ({"tier": 3}, "tier"),
        ({"job_id": "a b"}, "job_id"),
        ({"job_id": "é" * 3}, "job_id"),
        ({"type": 7}, "type"),
    ],
)
def test_a_fault_names_its_place(fields: dict[str, Any], path: str) -> None:
    assert path in faults_of(job(**fields))


@pytest.mark.parametrize("document", [None, [], "job", 7, {1: 2}])
def test_what_is_no_table_of_keys_is_a_fault(document: object) -> None:
    assert faults_of(document)


def test_a_hostile_value_is_shown_short_and_printable() -> None:
    fault = faults_of(job(type="\x1b[31m" + "A" * 10_000))["type"]
    assert len(fault.value) <= 80
    assert fault.value.isprintable()


def test_a_long_almost_image_is_refused_quickly() -> None:
    assert "image" in faults_of({"job_id": "j", "image": "a" + "_" * 500 + "!"})


def test_a_command_line_is_split_and_arguments_follow() -> None:
    assert parse(job(command="python 'my file.py'", args=["-n", "3"])).command == ("python", "my file.py", "-n", "3")
    assert parse(job(command=["sh", "-c", "a\nb"])).command[2] == "a\nb"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [({}, (2, 2, 4)), ({"replicas": 1}, (1, 1, 3)), ({"replicas": 3}, (3, 2, 5)), ({"quorum": 3}, (3, 3, 5))],
)
def test_redundancy_has_defaults_that_fit_together(given_: dict[str, int], expected: tuple[int, int, int]) -> None:
    found = parse(job(redundancy=given_))
    assert (found.replicas, found.quorum, found.executions_max) == expected


def resolved(**fields: Any) -> Resolved:
    descriptor = parse(job(input_files=["b", "a"], env={"Z": "1", "A": "2"}, **fields))
    return resolve(descriptor, DIGEST, [ResolvedInput("b", DIGEST, 1), ResolvedInput("a", DIGEST, 2)])


def test_what_travels_comes_back_equal_and_hashes_alike() -> None:
    one = resolved(command=["x"], labels={"lab": "7"})
    again = decode_resolved(encode(one))
    assert again == one
    assert descriptor_hash(again) == descriptor_hash(one)
    assert [item.path for item in one.inputs] == ["a", "b"]
    assert descriptor_hash(resolved(command=["y"], labels={"lab": "7"})) != descriptor_hash(one)


def test_inputs_must_be_those_of_the_file_and_match_their_pin() -> None:
    descriptor = parse(job(inputs=[{"uri": "file:a", "sha256": "00" * 32}]))
    with pytest.raises(LocalError, match="do not match"):
        resolve(descriptor, DIGEST, [])
    with pytest.raises(LocalError, match="not what the descriptor pins"):
        resolve(descriptor, DIGEST, [ResolvedInput("a", DIGEST, 1)])


def test_a_descriptor_too_large_to_travel_is_refused() -> None:
    names = [f"{index:04}" + "x" * 100 for index in range(1000)]
    with pytest.raises(LocalError, match="too large"):
        resolve(parse(job(input_files=names)), DIGEST, [ResolvedInput(name, DIGEST, 1) for name in names])


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (ResolvedInput("../up", DIGEST, 1),)},
        {"inputs": (ResolvedInput("b", DIGEST, 1), ResolvedInput("a", DIGEST, 1))},
        {"inputs": (ResolvedInput("a", DIGEST, 1), ResolvedInput("a/b", DIGEST, 1))},
        {"quorum": 3},
        {"tasks": 0},
        {"image_digest": b"short"},
        {"estimated_flops": 2**63 - 1, "credit_rate_micro": 2**63 - 1},
        {"env": (("B", "1"), ("A", "1"))},
        {"command": ("\x00",)},
        {"labels": (("a", "\u202e"),)},
        {"needs": [1000, 1, 1, 0, 0, "\x1b[2J", ""]},
        {"needs": [1000, 1]},
        {"version": 2},
    ],
)
def test_a_hostile_descriptor_from_a_peer_is_refused(change: dict[str, Any]) -> None:
    good = resolved()
    raw = encode([change.get(name, getattr(good, name)) for name in Resolved.__struct_fields__])
    with pytest.raises(NotCanonical):
        decode_resolved(raw)


@settings(derandomize=True)
@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_never_crashes(raw: bytes) -> None:
    with pytest.raises(NotCanonical):
        decode_resolved(raw)


WORDS = st.text("ab1./é \n", max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # other work on the machine is no fault
@given(st.dictionaries(st.sampled_from([field.name for field in DESCRIPTOR.fields]), JSON_VALUES))
def test_any_document_is_a_job_or_a_list_of_faults(document: dict[str, Any]) -> None:
    try:
        descriptor = parse(document)
    except DescriptorFaults:
        return
    assert descriptor.quorum <= descriptor.replicas <= descriptor.executions_max


@pytest.mark.parametrize(
    ("rate", "flops", "price"),
    [
        (1, 10**12, 1_000_000),
        (1.5, 10**12, 1_500_000),
        (1, 500_000, 0),
        (1, 1_500_000, 2),
        (1, 2_500_000, 2),
        (0, 10**12, 0),
    ],
)
def test_the_price_rounds_half_to_even(rate: float, flops: int, price: int) -> None:
    assert price_micro(parse(job(credit_rate=rate, estimated_flops=flops))) == price


def test_without_an_estimate_a_task_costs_one_credit() -> None:
    assert price_micro(parse(job())) == 1_000_000
