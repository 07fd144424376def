"""The manifest: one spelling, sorted, safe; and which files it holds."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexapod.encoding import encode
from runtime.outputs import (
    DEPTH_MAX,
    FILES_MAX,
    NotAResult,
    manifest_of,
    parse_manifest,
    result_root,
    safe_path,
    selected,
)
from runtime.task import OutputFile

SHA = bytes(range(32))


def test_the_bytes_of_a_manifest_are_frozen() -> None:
    raw = manifest_of(3, [OutputFile("b", 2, SHA), OutputFile("a/x", 1, SHA)])
    assert raw == encode(["nexapod/result/1", 3, [["a/x", 1, SHA], ["b", 2, SHA]]])
    assert (
        result_root(manifest_of(0, [])).hex() == "930e10c85156c6137c60ec630e963e2fdf68b2c2ae4d569ac6df86bf" + "f77c5078"
    )


@given(
    st.integers(0, 255),
    st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "\u00e9", "z.dat", "\U0001f9ea"]), st.integers(0, 2**40)),
    st.randoms(),
)
def test_order_of_creation_does_not_show_and_reading_gives_it_back(
    exit_code: int, sizes: dict[str, int], random: object
) -> None:
    files = [OutputFile(path, size, SHA) for path, size in sizes.items()]
    raw = manifest_of(exit_code, files)
    random.shuffle(files)  # type: ignore[attr-defined]
    assert manifest_of(exit_code, files) == raw
    code, read = parse_manifest(raw)
    assert (code, {file.path: file.size for file in read}) == (exit_code, sizes)
    assert [file.path.encode() for file in read] == sorted(file.path.encode() for file in read)


@pytest.mark.parametrize(
    "page",
    [
        ["nexapod/result/2", 0, []],
        ["nexapod/result/1", 256, []],
        ["nexapod/result/1", 0, [["b", 1, SHA], ["a", 1, SHA]]],
        ["nexapod/result/1", 0, [["a", 1, SHA], ["a", 1, SHA]]],
        ["nexapod/result/1", 0, [["a", 1, SHA], ["a/b", 1, SHA]]],
        ["nexapod/result/1", 0, [["../a", 1, SHA]]],
        ["nexapod/result/1", 0, [["/a", 1, SHA]]],
        ["nexapod/result/1", 0, [["a", 1, SHA[:31]]]],
        ["nexapod/result/1", 0, [["a", 1, SHA, 0]]],
        ["nexapod/result/1", 0, [[f"{n:05}", 1, SHA] for n in range(FILES_MAX + 1)]],
        [],
        7,
    ],
)
def test_manifests_nobody_honest_writes(page: object) -> None:
    with pytest.raises(NotAResult):
        parse_manifest(encode(page))


@given(st.binary(max_size=200))
def test_noise_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(NotAResult):
        parse_manifest(raw)


def test_another_spelling_is_no_manifest() -> None:
    raw = manifest_of(0, [])
    with pytest.raises(NotAResult):
        parse_manifest(raw[:1] + b"\xd9\x10" + raw[2:])
    with pytest.raises(NotAResult):
        parse_manifest(raw + b"\0")


@pytest.mark.parametrize(
    "path", ["a", "a/b", ".hidden", "a b", "x" * 255, "\u00e9", "a/" * (DEPTH_MAX - 1) + "b", "..."]
)
def test_safe_paths(path: str) -> None:
    assert safe_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "x" * 256, "a/" * DEPTH_MAX + "b", "a\0", "a\nb",
        "\x7f", "e\u0301", "\u202e", "\ud800", "a\\b", "/".join(["x" * 200] * 6),
    ],
)  # fmt: skip
def test_unsafe_paths(path: str) -> None:
    assert not safe_path(path)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.dat", ["a.dat", ".dat"], ["a/b.dat", "a.dat2", "adat"]),
        ("**/*.dat", ["a.dat", "x/y/a.dat"], ["a.txt"]),
        ("runs/", ["runs/a", "runs/b/c"], ["run", "xruns/a"]),
        ("runs/**/end", ["runs/end", "runs/a/b/end"], ["end", "runs/a/bend"]),
        ("/out/a?", ["ab"], ["a", "abc", "a/"]),
        ("a*b*c", ["abc", "aXbbXc", "abcbc"], ["ab", "acb", "a/bc"]),
        ("[a]", ["[a]"], ["a"]),
        ("a+(b)", ["a+(b)"], ["aab"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    for path in yes:
        assert selected(path, (glob,), ()), path
        assert not selected(path, (), (glob,)), path
    for path in no:
        assert not selected(path, (glob,), ()), path


def test_progress_is_never_part_of_a_result() -> None:
    assert not selected(".progress", (), ())
    assert not selected(".progress", (".progress",), ())


def test_a_hostile_glob_costs_no_more_than_an_honest_one() -> None:
    begun = time.process_time()
    assert not selected("a" * 255, ("*a" * 100 + "b", "**/" * 100 + "*a" * 100 + "b"), ())
    assert time.process_time() - begun < 0.5
