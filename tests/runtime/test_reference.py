"""Image names: what passes, and that nothing hostile does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.reference import REFERENCE_CHARS_MAX, NotAReference, Reference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("busybox", "busybox", "latest", ""),
        ("python:3.12-slim", "python", "3.12-slim", ""),
        ("ghcr.io/a-b/c__d.e:v1", "ghcr.io/a-b/c__d.e", "v1", ""),
        ("localhost:5000/x", "localhost:5000/x", "latest", ""),
        ("Registry.Example:443/x/y:T_1", "Registry.Example:443/x/y", "T_1", ""),
        (f"busybox@{DIGEST}", "busybox", "", "ab" * 32),
        (f"busybox:1@{DIGEST}", "busybox", "1", "ab" * 32),
    ],
)
def test_names_that_pass(text: str, name: str, tag: str, digest: str) -> None:
    assert parse_reference(text) == Reference(name, tag, bytes.fromhex(digest))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "a/", "UPPER", "user/Upper", "a b", "a\n", "a\0",
        "\u00e9", "a:", "a:-x", "a:" + "x" * 129, "a@", "a@sha256:ab", "a@md5:" + "ab" * 16, f"a@{DIGEST.upper()}",
        f"a@{DIGEST}@{DIGEST}", "a?x=1", "a#b", "a%2f..", "-a", "a-", "a..b", ":5000/x", "http://x/y", "x" * 256,
        "host.x:99999999/y", "a:b:c", "x/" * 300,
    ],
)  # fmt: skip
def test_names_that_do_not(text: str) -> None:
    with pytest.raises(NotAReference):
        parse_reference(text)


def test_the_longest_name_is_bounded() -> None:
    with pytest.raises(NotAReference, match=str(REFERENCE_CHARS_MAX)):
        parse_reference("a" * (REFERENCE_CHARS_MAX + 1))


@given(st.text(alphabet="aA0._-/:@%?# \n\\", max_size=30))
def test_whatever_passes_reads_back_and_stays_in_its_place(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except NotAReference:
        return
    assert parse_reference(str(parsed)) == parsed
    assert ".." not in str(parsed)
    assert not set(str(parsed)) & set("%?# \n\\")
