"""One finding out of several."""

from nexapod.cli.finding import fail, ok, together, warn


def test_nothing_wrong_is_well() -> None:
    assert together([], "fine") == ok("fine")
    assert together([ok("a"), ok("b")], "fine") == ("ok", "fine", "")


def test_the_gravest_comes_first_and_nothing_is_lost_or_said_twice() -> None:
    found = [
        warn("slow", "wait"),
        ok("x"),
        fail("gone", "find"),
        warn("slow", "wait"),
        warn("late"),
        fail("off", "find"),
    ]
    assert together(found, "fine") == ("fail", "gone; off; slow; late", "find; then wait")
    assert together([warn("slow")]) == ("warn", "slow", "")
