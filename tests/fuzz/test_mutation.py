"""Mutated inputs: the same again for the same seed, of many kinds, and never too long."""

from pathlib import Path

import pytest

from tests.fuzz.mutation import BLOCK, Form, Mutator
from tests.fuzz.parsers import Parser, all_parsers

PARSERS = all_parsers(Path("nowhere"))
ONE_OF_EACH = {parser.form: parser for parser in PARSERS.values()}


def mutator(parser: Parser) -> Mutator:
    return Mutator(parser.form, parser.seeds(), size_max=2048)


@pytest.mark.parametrize("form", Form)
def test_the_same_seed_and_block_give_the_same_inputs(form: Form) -> None:
    one, other = mutator(ONE_OF_EACH[form]), mutator(ONE_OF_EACH[form])
    list(one.block("x", 3))
    again = list(one.block("x", 7))
    assert list(other.block("x", 7)) == again
    assert list(other.block("x", 8)) != again
    assert len(again) == BLOCK


@pytest.mark.parametrize("form", Form)
def test_inputs_are_many_and_bounded(form: Form) -> None:
    made = [raw for number in range(5) for raw in mutator(ONE_OF_EACH[form]).block("x", number)]
    assert len(set(made)) > len(made) / 3  # of a frame of a few bytes there are not so many
    assert max(map(len, made)) <= 2048
    assert len({len(raw) for raw in made}) > 50
