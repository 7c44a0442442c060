"""Beam search against looking at every sequence: a beam that is wide enough finds what is the best of all."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.resources import triton_directory

END = 0
VOCABULARY = 3
LONGEST = 3
Table = Mapping[tuple[int, ...], Sequence[float]]


@dataclass(frozen=True)
class Told:
    logprob: float


@pytest.fixture(scope="module")
def beams() -> ModuleType:
    """Imported as Triton's stub does."""
    directory = str(triton_directory() / "backends" / "vllm")
    sys.path.insert(0, directory)
    try:
        return importlib.import_module("vllm_backend.beams")
    finally:
        sys.path.remove(directory)


def tables() -> st.SearchStrategy[Table]:
    """Log-probabilities of the next token after each sequence."""
    sequences = [one for length in range(LONGEST) for one in itertools.product(range(VOCABULARY), repeat=length)]
    row = st.lists(st.floats(0.01, 1), min_size=VOCABULARY, max_size=VOCABULARY).map(
        lambda weights: [math.log(weight / sum(weights)) for weight in weights]
    )
    return st.fixed_dictionaries(dict.fromkeys(sequences, row))


def found(beams: ModuleType, table: Table, *, width: int, penalty: float, shows_end: bool) -> list[Any]:
    asked: list[int] = []

    async def next_tokens(sequences: Sequence[tuple[int, ...]]) -> list[Mapping[int, Told]]:
        asked.append(len(sequences))
        return [{token: Told(logprob) for token, logprob in enumerate(table[one])} for one in sequences]

    wish = beams.Wish(width=width, length_penalty=penalty)
    best = asyncio.run(beams.search(next_tokens, wish, most=LONGEST, prompt_tokens=4, end=END, shows_end=shows_end))
    assert max(asked) <= width and len(asked) <= LONGEST
    return list(best)


def all_of(table: Table) -> list[tuple[float, int]]:
    """Log-probability and length without the end: of each sequence that ends, or is as long as may be."""
    made = []
    for length in range(1, LONGEST + 1):
        for one in itertools.product(range(VOCABULARY), repeat=length):
            if END not in one[:-1] and (length == LONGEST or one[-1] == END):
                logprob = sum(table[one[:at]][token] for at, token in enumerate(one))
                made.append((logprob, length - (one[-1] == END)))
    return made


@given(table=tables(), penalty=st.sampled_from([0.0, 1.0, 2.0]), shows_end=st.booleans())
def test_a_wide_beam_finds_the_best_of_all(beams: ModuleType, table: Table, penalty: float, shows_end: bool) -> None:
    best = found(beams, table, width=VOCABULARY**LONGEST, penalty=penalty, shows_end=shows_end)
    expected = sorted((logprob / (4 + length) ** penalty for logprob, length in all_of(table)), reverse=True)
    lengths = [len(beam.tokens) - (beam.ended and shows_end) for beam in best]
    scores = [beam.logprob / (4 + length) ** penalty for beam, length in zip(best, lengths, strict=True)]
    assert scores == pytest.approx(expected)
    for beam in best:
        firsts = [next(iter(position)) for position in beam.positions]
        assert tuple(firsts) == beam.tokens
        assert (END in beam.tokens) == (beam.ended and shows_end)


@given(table=tables(), width=st.integers(1, 4))
def test_no_more_beams_than_were_asked_for(beams: ModuleType, table: Table, width: int) -> None:
    best = found(beams, table, width=width, penalty=1.0, shows_end=False)
    assert len(best) == width
    assert len({(beam.tokens, beam.ended) for beam in best}) == width
