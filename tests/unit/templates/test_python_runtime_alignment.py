"""Where tokens stand in a text: the part of the python runtime for tokenizers that do not say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.resources import templates_directory


@pytest.fixture(scope="module")
def alignment() -> Iterator[ModuleType]:
    """The module as Triton's stub imports it."""
    directory = str(templates_directory() / "python")
    sys.path.insert(0, directory)
    yield importlib.import_module("1.alignment")
    sys.path.remove(directory)


CASES: list[tuple[str, str, list[str], list[str | None]]] = [
    ("HASHES", "Zoë plays in Łódź.", ["zoe", "play", "##s", "in", "[UNK]", "."], ["Zoë", "play", "s", "in", "Łódź", "."]),
    ("HASHES", "e\u0301te\u0301  ", ["ete"], ["e\u0301te\u0301"]),
    ("HASHES", "ﬁne ½ ①", ["fine", "1⁄2", "1"], ["ﬁne", "½", "①"]),
    ("HASHES", "東京 a", ["東", "京", "a"], ["東", "京", "a"]),
    ("AT_SIGNS", "Sài Gòn đẹp", ["Sà@@", "i", "Gòn", "đ@@", "ẹp"], ["Sà", "i", "Gòn", "đ", "ẹp"]),
    ("AT_SIGNS", "I'm 😂 here…", ["I'm", ":joy:", "here", "..."], ["I'm", "😂", "here", "…"]),
    ("WORD_END", "New York", ["new</w>", "y", "ork</w>"], ["New", "Y", "ork"]),
    ("BAR", "the  dogs", ["▁the", "▁dog", "s"], ["the", "dog", "s"]),
    ("PLAIN", "a b", ["a", " ", "b"], ["a", " ", "b"]),
    ("PLAIN", "MKV", ["M", "K", "V"], ["M", "K", "V"]),
    ("HASHES", "one 1̷2̷ 東x two", ["one", "[UNK]", "[UNK]", "two"], ["one", "1̷2̷", "東x", "two"]),
    ("HASHES", "one xx yy zz two", ["one", "[UNK]", "[UNK]", "two"], ["one", None, None, "two"]),
    ("HASHES", "lost", ["found", "[UNK]"], [None, None]),
    ("HASHES", "", ["a"], [None]),
    ("HASHES", "[UNK] it", ["[UNK]", "it"], ["[UNK]", "it"]),
]


@pytest.mark.parametrize(("style", "text", "tokens", "expected"), CASES)
def test_a_token_stands_where_a_reader_would_mark_it(
    alignment: ModuleType, style: str, text: str, tokens: list[str], expected: list[str | None]
) -> None:
    places = alignment.align(text, tokens, alignment.Style[style], "[UNK]")
    assert [None if place is None else text[slice(*place)] for place in places] == expected


@given(text=st.text(max_size=40), tokens=st.lists(st.text(max_size=6), max_size=12), style=st.integers(0, 4))
def test_places_are_in_the_text_and_in_order(alignment: ModuleType, text: str, tokens: list[str], style: int) -> None:
    """Whatever a tokenizer gives."""
    places = [place for place in alignment.align(text, tokens, list(alignment.Style)[style], "u") if place is not None]
    assert all(0 <= start < stop <= len(text) for start, stop in places)
    assert all(before[1] <= after[0] for before, after in pairwise(places))


@given(
    words=st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=6), max_size=12), data=st.data()
)
def test_words_that_were_cut_up_are_found_again(alignment: ModuleType, words: list[str], data: Any) -> None:
    """Exact pieces, with any space between the words: each is where it was taken from."""
    text, tokens, expected = "", [], []
    for word in words:
        text += data.draw(st.sampled_from(["", " ", "\n\t "]))
        cut = data.draw(st.integers(1, len(word)))
        for piece in (word[:cut], word[cut:]):
            if piece:
                expected.append((len(text), len(text) + len(piece)))
                tokens.append(piece)
                text += piece
    assert alignment.align(text, tokens, alignment.Style.PLAIN) == expected


def test_a_vocabulary_says_how_it_writes_parts_of_words(alignment: ModuleType) -> None:
    style = alignment.Style
    marks = {"##s": style.HASHES, "Sà@@": style.AT_SIGNS, "ork</w>": style.WORD_END, "▁the": style.BAR, "M": style.PLAIN}
    for word, expected in marks.items():
        assert style.of({"a": 0, "##": 1, "@@": 2, "</w>": 3, word: 4}) is expected
    assert [style.HASHES.goes_on(token, "x") for token in ("##s", "s")] == [True, False]
    assert [style.AT_SIGNS.goes_on("i", before) for before in ("Sà@@", "Sà")] == [True, False]
    assert [style.WORD_END.goes_on("i", before) for before in ("a", "a</w>")] == [True, False]
    assert style.PLAIN.goes_on("M", "K") is None
