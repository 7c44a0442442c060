"""To which model an adapter belongs, and what a model with adapters is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.adapters import Bases, Dropped, first_of_each_name, with_adapters
from modelium.values import Adapter
from tests.unit.brain.languages import FULL, group, language, llm
from tests.unit.brain.worlds import profile

BASES = Bases(
    Dropped(key=label.replace("/", "--"), label=label, path=f"/incoming/{label}")
    for label in ("meta/Llama-3", "Llama-2", "a/Qwen3", "b/qwen3", "plain")
)
POET = Dropped(key="poet", label="poet", path="/incoming/poet")
LLAMA = llm("llama", 10**8, language(group(FULL, 2, 4, 64)))


def adapter(name: str, fingerprint: str = "f") -> Adapter:
    return Adapter(name=name, path=Path("/incoming") / name, rank=8, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("wanted", "base"),
    [
        ("meta/Llama-3", "meta--Llama-3"),
        ("meta--Llama-3", "meta--Llama-3"),
        ("/incoming/Llama-2", "Llama-2"),
        ("/incoming/Llama-2/", "Llama-2"),
        ("meta-llama/llama-2", "Llama-2"),
        ("LLAMA-3", "meta--Llama-3"),
        ("/somewhere/else/plain", "plain"),
        ("b/qwen3", "b--qwen3"),
    ],
)
def test_a_base_is_found_by_any_of_its_names(wanted: str, base: str) -> None:
    assert BASES.find(POET, wanted, None).base == base


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("org/other", "drop org/other, or name its base in models: {poet: {base: NAME}}"),
        ("c/Qwen3", "could be a--Qwen3 or b--qwen3"),
        ("", "does not say for which model"),
    ],
)
def test_without_a_base_the_user_reads_what_to_do(wanted: str, words: str) -> None:
    found = BASES.find(POET, wanted, None)
    assert found.base is None and words in found.reason


def test_the_user_wins_then_the_folders_name_then_the_config() -> None:
    named = Dropped(key="x", label="plain:poet", path="/incoming/x")
    assert BASES.find(named, "Llama-2", "a/Qwen3").base == "a--Qwen3"
    assert BASES.find(named, "Llama-2", None).base == "plain"
    missing = BASES.find(named, "Llama-2", "gone")
    assert missing.base is None and "which is not here: drop gone" in missing.reason


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.text(max_size=3)), unique_by=lambda pair: pair[0]))
def test_a_base_with_adapters_is_another_revision_whatever_their_order(pairs: list[tuple[str, str]]) -> None:
    adapters = [adapter(name, fingerprint) for name, fingerprint in pairs]
    dressed = with_adapters(LLAMA, adapters)
    assert dressed == with_adapters(LLAMA, adapters[::-1])
    assert (dressed == LLAMA) is (not adapters) is (dressed.fingerprint == LLAMA.fingerprint)
    if adapters:
        changed = [adapter(adapters[0].name, "changed!"), *adapters[1:]]
        assert with_adapters(LLAMA, changed).fingerprint != dressed.fingerprint


def test_what_is_no_language_model_stays_as_it_is() -> None:
    assert with_adapters(profile(), [adapter("a")]) == profile()


def test_one_adapter_a_name() -> None:
    kept, refused = first_of_each_name({"b": adapter("x"), "a": adapter("x"), "c": adapter("y")})
    assert [each.name for each in kept] == ["x", "y"] and refused == {"b": "a"}
