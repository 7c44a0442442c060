"""The names that are like one that nobody has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelium.nearest import _kept, nearest


def test_the_likeliest_come_first() -> None:
    known = ["acme--judge", "acme--summary", "bert", "llama-3-8b", "llama-3-70b"]
    assert nearest("acme--jugde", known)[0] == "acme--judge"
    assert set(nearest("llama-3", known)) == {"llama-3-8b", "llama-3-70b"}
    assert nearest("Bert", known) == ["bert"]


def test_nothing_is_like_nothing() -> None:
    assert nearest("zzz", ["acme--judge", "bert"]) == []
    assert nearest("", ["bert"]) == []
    assert nearest("bert" * 1_000_000, ["bert"]) == []


def test_one_among_thousands_is_found() -> None:
    known = [f"model-{number:04}" for number in range(5_000)] + ["sentence-transformers--all-MiniLM-L6-v2"]
    assert nearest("all-minilm-l6-v2", known) == ["sentence-transformers--all-MiniLM-L6-v2"]


def test_all_names_that_there_are_stay_learnt_and_those_that_went_do_not() -> None:
    known = [f"model-{number:05}" for number in range(20_001)]
    assert nearest("model-19999x", known)
    assert all(name in _kept for name in known), "the next call would learn them again, on the loop"
    assert nearest("brt", ["bert"]) == ["bert"]
    assert len(_kept) == 1


@given(st.text(), st.lists(st.text()))
def test_any_name_among_any_names(name: str, known: list[str]) -> None:
    found = nearest(name, known)
    assert len(found) <= 3
    assert set(found) <= set(known)
