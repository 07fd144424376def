"""Every message: there and back, one spelling only, no hostile text, no number twice."""

import random
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexapod import messages
from nexapod.encoding import NotCanonical, Wire, decode, encode
from nexapod.job import Needs, Resolved, ResolvedInput
from nexapod.limits import REPLY_BYTES_MAX
from nexapod.messages import DATA_OF_KIND, KIND_OF_DATA, Ask, EventData, Kind, Reply
from tests.nexapod.spellings import spellings
from tests.nexapod.strategies import values, wire_types, with_text, worst

EVERY = [*wire_types(), Needs, ResolvedInput]
# What a body holds is bound by its kind (test_events.py), the path of an input by its descriptor (test_job.py).
BOUNDED = [kind for kind in EVERY if kind not in (messages.Body, ResolvedInput)]
QUIET = settings(derandomize=True, deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))


def name_of(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


@pytest.mark.parametrize("kind", EVERY, ids=name_of)
def test_a_message_comes_back_equal(kind: type[Wire]) -> None:
    @QUIET
    @given(values(kind))
    def there_and_back(value: Wire) -> None:
        raw = encode(value)
        again = decode(raw, kind, size_max=REPLY_BYTES_MAX)
        assert again == value
        assert encode(again) == raw

    there_and_back()


@pytest.mark.parametrize("kind", BOUNDED, ids=name_of)
def test_the_longest_message_its_bounds_allow_comes_back_equal(kind: type[Wire]) -> None:
    value = worst(kind)
    assert decode(encode(value), kind, size_max=2**30) == value


@pytest.mark.parametrize("union", [Ask, Reply], ids=["Ask", "Reply"])
def test_what_is_said_on_a_stream_is_told_apart(union: Any) -> None:
    for kind in get_args(union):
        value = worst(kind)
        assert type(decode(encode(value), union, size_max=2**30)) is kind
    tags = [kind.__struct_config__.tag for kind in get_args(union)]
    assert len(set(tags)) == len(tags)


def test_questions_and_answers_share_no_number() -> None:
    assert not {k.__struct_config__.tag for k in get_args(Ask)} & {k.__struct_config__.tag for k in get_args(Reply)}


def test_every_kind_of_event_has_its_data_and_no_number_twice() -> None:
    assert set(DATA_OF_KIND) == set(Kind)
    assert set(get_args(EventData)) == set(DATA_OF_KIND.values()) == set(KIND_OF_DATA)
    assert len(Kind.__members__) == len(set(Kind)), "an alias would be a number used twice"


# --- one value, one spelling -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", BOUNDED, ids=name_of)
def test_every_other_spelling_is_refused(kind: type[Wire]) -> None:
    @QUIET
    @given(values(kind))
    def one_only(value: Wire) -> None:
        for other in spellings(encode(value)):
            with pytest.raises(NotCanonical):
                decode(other, kind, size_max=REPLY_BYTES_MAX)

    one_only()


@pytest.mark.parametrize("kind", BOUNDED, ids=name_of)
def test_no_text_of_a_message_reaches_a_terminal_unchecked(kind: type[Wire]) -> None:
    """Escape sequences, line ends, direction marks, decomposed letters and characters only some Pythons know."""
    for bad in ("\x1b[31m", "a\nb", "a\u2028b", "\u202e", "e\u0301", "\U0001343a", "\ue000", "\x9b"):
        for spelled in with_text(worst(kind), bad):
            with pytest.raises(NotCanonical):
                decode(encode(spelled), kind, size_max=2**30)


@pytest.mark.parametrize("kind", BOUNDED, ids=name_of)
def test_one_beyond_a_bound_is_refused(kind: type[Wire]) -> None:
    value = worst(kind)
    for name in kind.__struct_fields__:
        longer = beyond(getattr(value, name))
        if longer is None:
            continue
        parts = [longer if field == name else getattr(value, field) for field in kind.__struct_fields__]
        tag = kind.__struct_config__.tag
        with pytest.raises(NotCanonical):
            decode(encode(parts if tag is None else [tag, *parts]), kind, size_max=2**30)


def beyond(part: Any) -> Any:
    """One more than the greatest; None where there is no more."""
    match part:
        case bool() | None | Wire():
            return None
        case int():
            return part + 1
        case tuple():
            return (*part, part[0])
        case _:
            return part + part[:1]


# --- damage ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [*EVERY, Resolved, Ask, Reply], ids=name_of)
def test_damaged_bytes_are_refused_or_are_another_message_and_nothing_else(kind: Any) -> None:
    chance = random.Random(0)
    sample = RESOLVED if kind is Resolved else small(kind)
    good = encode(sample)
    for _ in range(400):
        raw = damaged(good, chance)
        with suppress(NotCanonical):
            assert encode(decode(raw, kind, size_max=REPLY_BYTES_MAX)) == raw


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=200))
def test_rubbish_is_no_message(raw: bytes) -> None:
    for kind in (Ask, Reply, messages.Envelope, messages.Body, messages.Signed):
        with pytest.raises(NotCanonical):
            decode(raw, kind, size_max=REPLY_BYTES_MAX)


def damaged(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[at:at] = bytes([chance.choice((0x81, 0x91, 0xC0, 0xC1, 0xC7, 0xCA, 0xD9, 0xDD, 0xDF, 0xFF))])
            case 2:
                del changed[at : at + chance.randint(1, 40)]
            case _:
                changed[at : at + 1] = bytes([changed[at] ^ 1 << chance.randrange(8)]) if at < len(changed) else b""
    return bytes(changed)


def small(kind: Any) -> Any:
    """A short sound value of a type, always the same."""
    found: list[Any] = []

    @settings(derandomize=True, max_examples=5, deadline=None, database=None)
    @given(values(kind))
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found[-1]


RESOLVED = Resolved(
    1, "job", "generic", "docker", "image:1", b"d" * 32, ("run", "it"), (("A", "1"),),
    (ResolvedInput("in.txt", b"h" * 32, 7),), ("out/*",), (), 3, 10**12, 10**6, 0, Needs(), 2, 2, 4,
    messages.Mode.EXACT, messages.Independence.NODE, messages.Policy.STRICT, 0, 0, 1000, 1000, 30, (("lab", "seven"),),
)  # fmt: skip
