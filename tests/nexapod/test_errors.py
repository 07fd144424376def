"""Three families of errors, and the exit codes other programs rely on."""

from nexapod.encoding import NotCanonical
from nexapod.errors import Exit, LocalError, PeerError, Unavailable
from nexapod.job_faults import DescriptorFaults, Fault


def test_exit_codes_never_change() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "NO_DAEMON": 3,
        "NOT_FOUND": 4,
        "JOB_FAILED": 5,
        "DISPUTED": 6,
        "REFUSED": 7,
        "TIMED_OUT": 124,
        "INTERRUPTED": 130,
    }


def test_a_local_error_says_what_and_why_in_one_line_and_keeps_the_next_step() -> None:
    error = LocalError("the key is gone", "no such file", "run: nexapod init", Exit.USAGE)
    assert str(error) == "the key is gone: no such file"
    assert (error.next_step, error.exit_code) == ("run: nexapod init", Exit.USAGE)
    assert str(LocalError("the key is gone")) == "the key is gone"
    assert LocalError("x").exit_code == Exit.FAILURE


def test_whose_fault_it_is_can_be_told_from_the_type() -> None:
    families = (LocalError, PeerError, Unavailable)
    for error in (DescriptorFaults([Fault("a", "", "b")]), NotCanonical("x"), Unavailable("x")):
        assert sum(isinstance(error, family) for family in families) == 1


def test_a_breach_carries_its_rule_and_its_price() -> None:
    error = PeerError("a lie", section="events", cost=100, peer=b"p")
    assert (str(error), error.section, error.cost, error.peer) == ("a lie", "events", 100, b"p")
    assert NotCanonical("odd").section == "encoding"
    assert NotCanonical("odd").cost > 0
