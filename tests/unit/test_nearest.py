"""The names that are like one that nobody has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelium.nearest import nearest


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


@given(st.text(), st.lists(st.text()))
def test_any_name_among_any_names(name: str, known: list[str]) -> None:
    found = nearest(name, known)
    assert len(found) <= 3
    assert set(found) <= set(known)
