"""The table of keys: the first published example, and the JSON Schema that says the same as the check."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexapod.job import parse
from nexapod.job_file import load
from nexapod.job_shapes import (
    REFUSED,
    Either,
    Flag,
    ListOf,
    Named,
    Plain,
    Record,
    RelativePath,
    Scaled,
    Shape,
    Text,
    Whole,
)
from nexapod.job_table import DESCRIPTOR, job_schema, job_schema_text
from tests.nexapod.schema import accepts

# As it was first published, byte for byte: it must stay valid unchanged.
FIRST_EXAMPLE = (
    '{"schema_version": "1.0", "job_id": "fold_ensemble_v1", "type": "protein_folding", "input_files": '
    '["input1.fasta", "params.json"], "docker_image": "nexapod/folding:latest", "estimated_flops": 1.2e12, "tier": 1, '
    '"requirements": {"gpu": true, "ram_gb": 8}, "input_uri": "s3://nexapod-inputs/fold_ensemble_v1/", '
    '"tolerance": 0.01, "credit_rate": 1.0}'
)
SCHEMA: dict[str, Any] = job_schema()


def test_the_first_example_is_valid_unchanged_for_reader_table_and_schema(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(FIRST_EXAMPLE)
    assert load(tmp_path / "job.json") == parse(json.loads(FIRST_EXAMPLE))
    assert accepts(SCHEMA, json.loads(FIRST_EXAMPLE))


def test_the_published_schema_is_up_to_date() -> None:
    published = Path(__file__).parents[2] / "docs" / "job.schema.json"
    assert published.read_text() == job_schema_text(), "write it anew: see nexapod/job_table.py job_schema_text"


def test_schema_and_table_know_the_same_keys_and_say_what_each_is_for() -> None:
    assert list(SCHEMA["properties"]) == [field.name for field in DESCRIPTOR.fields]
    assert all(field["description"] for field in SCHEMA["properties"].values())
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": None},
        {"tsaks": 3},
        {"tasks": 0},
        {"tasks": 1.5},
        {"docker_image": None},
        {"image": "x:1"},
        {"input_files": ["a/../b"]},
        {"input_files": ["/etc/passwd"]},
        {"input_files": ["a", "a"]},
        {"requirements": {"gpu": 1}},
        {"requirements": {"gpoo": True}},
        {"tolerance": -0.1},
        {"type": "two words"},
        {"labels": {"a b": "c"}},
    ],
)
def test_the_schema_refuses_what_the_table_refuses(change: dict[str, Any]) -> None:
    document = {key: value for key, value in (json.loads(FIRST_EXAMPLE) | change).items() if value is not None}
    assert not accepts(SCHEMA, document)


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """What a person might write for a shape, mostly sound."""
    match shape:
        case Text(choices=(_, *_)):
            return st.sampled_from([*shape.choices, *shape.aliases])
        case Text(pattern=str() as pattern) if pattern:
            return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
        case Text():
            return st.text("abc é.\n", min_size=shape.min_chars, max_size=min(8, shape.max_chars))
        case RelativePath():
            return st.sampled_from(["a", "a/b.txt", "..a", "a..", ".hidden", "a b", "é", "x/" * 14 + "x", "*.csv", "-"])
        case Whole():
            whole = st.integers(shape.low, min(shape.high, 10**15))
            return st.sampled_from([shape.low, shape.high]) | whole | whole.map(float)
        case Scaled():
            return st.sampled_from([shape.low, shape.high, 0.5, 1.0, 1e-6]) | st.integers(shape.low, shape.high)
        case Flag():
            return st.booleans()
        case Plain():
            return (
                st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
            )
        case ListOf():
            return st.lists(values(shape.item), min_size=shape.min_items, max_size=4)
        case Named():
            return st.dictionaries(values(shape.name), values(shape.item), max_size=3)
        case Either():
            return st.one_of([values(one) for one in shape.shapes])
        case Record():
            must = {field.name: values(field.shape) for field in shape.fields if field.required}
            may = {field.name: values(field.shape) for field in shape.fields if not field.required}
            return st.fixed_dictionaries(must, optional=may)
    raise NotImplementedError(shape)


@pytest.mark.parametrize("field", DESCRIPTOR.fields, ids=lambda field: field.name)
def test_what_the_table_accepts_the_schema_accepts(field: Any) -> None:
    seen: list[bool] = []

    @settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
    @given(values(field.shape))
    def agree(value: Any) -> None:
        sound = field.shape.check(field.name, value, []) is not REFUSED
        assert not sound or accepts(SCHEMA["properties"][field.name], value)
        seen.append(sound)

    agree()
    assert any(seen), "no value was sound: this test says nothing"
