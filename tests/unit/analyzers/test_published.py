"""What the analyzers say of published models, held against what their authors published (tests/data/published)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from modelium.analyzers.language import read_language_model
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.cli.offline import Inspection
from modelium.values import AttentionKind, LanguageModel, ModelProfile
from tests.published import Published, analysis_of, collection, look, parameters, profile_of, tensors_of, write

# Larger than what is published in 16 bits by more than rounding, and why.
APART = {
    "gemma-4-26B-A4B": 0.03,  # the card's 25.2B is without a part of the vision tower
}
# Active parameters are counted here with embeddings and head, as Qwen, Mistral and DeepSeek do. Others round to "3B", or leave
# the embeddings out (OpenAI).
ACTIVE_APART = {
    "DeepSeek-V2-Lite": 0.13,
    "GLM-4.5-Air": 0.12,
    "MiniMax-M2.5": 0.11,
    "Qwen3-Next-80B-A3B-Instruct": 0.30,
    "Qwen3.5-35B-A3B": 0.16,
    "gpt-oss-120b": 0.12,
    "gpt-oss-20b": 0.17,
}
# Tensors; of what has more the configuration alone is read, but for one.
HEAVY = 30_000


def weight_of(entry: Published) -> int:
    return sum(1 for _ in tensors_of(entry))


@pytest.fixture(scope="module")
def profiles() -> Mapping[str, ModelProfile]:
    light = [name for name, entry in collection().items() if weight_of(entry) < HEAVY]
    return {name: found for name in light if isinstance(found := analysis_of(name), ModelProfile)}


def test_the_collection_is_large_and_says_where_it_is_from() -> None:
    entries = collection()
    assert len(entries) >= 90
    for name, entry in entries.items():
        assert all(source.startswith("https://") for source in (entry.sources["config"], entry.sources["facts"])), name
        assert entry.tensors and entry.facts.task, name
        first, *_ = tensors_of(entry)
        assert "{" not in first[0] and first[1].isupper(), name


def test_each_is_for_the_task_that_it_is_published_for(profiles: Mapping[str, ModelProfile]) -> None:
    told = {name: found.task.value for name, found in profiles.items()}
    assert told == {name: collection()[name].facts.task for name in profiles}


def test_parameters_are_those_that_are_published(profiles: Mapping[str, ModelProfile]) -> None:
    for name, found in profiles.items():
        said = collection()[name].facts.parameters
        assert said is not None
        slack = max(APART.get(name, 0.01), half_a_digit(said))
        assert found.parameters == pytest.approx(parameters(said), rel=slack), name


def test_active_parameters_are_those_that_are_published(profiles: Mapping[str, ModelProfile]) -> None:
    mixtures = 0
    for name, found in profiles.items():
        said = collection()[name].facts.active_parameters
        if said is None:
            continue
        assert found.language is not None
        slack = max(ACTIVE_APART.get(name, 0.02), half_a_digit(said))
        assert found.language.active_parameters == pytest.approx(parameters(said), rel=slack), name
        mixtures += 1
    assert mixtures >= 12


def test_contexts_and_caches_are_those_that_are_published() -> None:
    compared = 0
    for name, entry in collection().items():
        language = read(entry)
        if entry.facts.context_length is not None and language is not None:
            assert language.context_length == entry.facts.context_length, name
            compared += 1
        if entry.facts.kv_bytes_per_token is not None:
            assert language is not None and token_bytes(language) == entry.facts.kv_bytes_per_token, name
            compared += 1
    assert compared >= 100


def test_what_is_not_loaded_is_told_apart_from_what_is_stored() -> None:
    stored_twice = profile_of("Qwen3-0.6B")
    assert (stored_twice.parameters, stored_twice.weight_bytes) == (596_049_920, 2 * 751_632_384)
    assert stored_twice.loaded_bytes == 2 * 596_049_920
    nowhere = RuntimeChoice(runtime=None, rule="", reason="")
    shown = Inspection(profile=stored_twice, choice=nowhere, placement=None, placement_reason="").facts()
    assert shown["weights"].endswith("1.1 GiB of them are loaded")
    further = profile_of("GLM-4.5-Air")
    assert further.parameters == pytest.approx(106.85e9, rel=0.001) and further.weight_bytes == pytest.approx(221e9, rel=0.01)
    assert further.loaded_bytes == pytest.approx(2 * 106.85e9, rel=0.001)
    speaking = profile_of("Qwen2.5-Omni-7B")
    assert speaking.parameters == pytest.approx(10.73e9, rel=0.001)
    assert speaking.loaded_parameters == pytest.approx(8.93e9, rel=0.01)
    assert speaking.loaded_bytes == 2 * speaking.loaded_parameters


@pytest.mark.parametrize(
    "name", ["Qwen2.5-72B-Instruct-AWQ", "Qwen2.5-7B-Instruct-GPTQ-Int4", "Meta-Llama-3.1-8B-Instruct-bnb-4bit", "gpt-oss-20b"]
)
def test_packed_weights_count_as_what_they_stand_for(name: str) -> None:
    found, said = profile_of(name), collection()[name].facts.parameters
    assert said is not None and found.parameters == pytest.approx(parameters(said), rel=0.005)
    assert found.loaded_bytes == found.weight_bytes < found.parameters


def half_a_digit(said: str) -> float:
    """``"30.5B"`` may be 30.45 to 30.55."""
    digits = said[:-1].partition(".")[2]
    return 0.5 * 10.0 ** -len(digits) / float(said[:-1])


def read(entry: Published) -> LanguageModel | None:
    return read_language_model(
        entry.config, parameters=0, dtype="bfloat16", tokenizer={}, generation={}, has_chat_template=False
    )


def token_bytes(language: LanguageModel) -> int:
    """What the next token of a long request adds to the cache, in 16 bits."""
    return 2 * sum(_widths(language))


def _widths(language: LanguageModel) -> Iterator[int]:
    for group in language.groups:
        if group.kind is AttentionKind.FULL:
            yield group.layers * group.kv_heads * (group.head_size + (group.value_head_size or group.head_size))
        elif group.kind is AttentionKind.LATENT:
            yield group.layers * group.latent_width


@pytest.mark.thorough
def test_the_largest_mixture_is_whole_and_counted(tmp_path: Path) -> None:
    found = look(write(collection()["DeepSeek-R1"], tmp_path / "DeepSeek-R1"))
    assert isinstance(found, ModelProfile) and found.language is not None, found
    assert found.parameters == pytest.approx(671e9, rel=0.001) and found.loaded_bytes == pytest.approx(671e9, rel=0.01)
    assert found.weight_bytes == pytest.approx(688.6e9, rel=0.001)  # with the layer for a further token, and scales
    assert found.language.active_parameters == pytest.approx(37.5e9, rel=0.01)
