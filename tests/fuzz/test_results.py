"""A file is found below another by one look at its neighbour, as surely as by looking for each of its folders."""

from random import Random

from runtime.outputs import NotAResult, manifest_of
from runtime.task import OutputFile


def refused(paths: list[str]) -> bool:
    try:
        manifest_of(0, [OutputFile(path, 1, bytes(32)) for path in paths])
    except NotAResult as error:
        return "lies below a file" in error.what
    return False


def clashes(paths: list[str]) -> bool:
    """By definition."""
    return any(path.startswith(above + "/") for path in paths for above in paths)


def test_no_file_lies_below_another() -> None:
    chance, found = Random(3), set()
    for _ in range(5000):
        made = (
            "/".join(chance.choices(("a", "b", "a!", "a-b", "ab", "é", " "), k=chance.randrange(1, 5)))
            for _ in "123456"
        )
        paths = sorted(set(made))
        assert refused(paths) == clashes(paths)
        found.add(clashes(paths))
    assert found == {False, True}
