"""YAML as people mean it, and nothing that explodes."""

import pytest
import yaml

from nexapod.job_yaml import load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.2e12", 1.2e12),
        ("1e6", 1e6),
        ("1e-6", 1e-6),
        (".5e3", 500.0),
        ("-3E+2", -300.0),
        ("12", 12),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("2031-05-01", "2031-05-01"),
        ("2031-05-01T12:00:00Z", "2031-05-01T12:00:00Z"),
        ("e12", "e12"),
        ("v1e2", "v1e2"),
        ("{a: [1, x]}", {"a": [1, "x"]}),
        ("", None),
    ],
)
def test_plain_values_mean_what_they_mean_in_json(text: str, value: object) -> None:
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: &a [x, x]\nb: &b [*a, *a]", "aliases"),
        ("a: 1\nb: 2\na: 3", "'a' stands twice"),
        ("x: {a: 1, a: 2}", "'a' stands twice"),
        ("? [1]\n: 2", "unhashable"),
        ("a: !!python/object/apply:os.system [id]", "tags"),
        ("a: !x 1", "tags"),
        ("a: !!int ''", "tags"),
        ("[" * 33, "too deep"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: \x1b", "special characters"),
        ("[", "expected"),
    ],
)
def test_what_is_not_one_plain_document_is_refused(text: str, says: str) -> None:
    with pytest.raises(yaml.YAMLError, match=says):
        load_yaml(text)
