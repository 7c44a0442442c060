"""Which classifiers rank: a head of one label, where sentence-transformers or the README says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.brain.runtimes.python import find_obstacle
from modelium.values import ModelOverride, Task
from tests.unit.analyzers.folders import BERT, drop, profile

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
ONE: dict[str, object] = {**BERT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
THREE = {**ONE, "id2label": {"0": "no", "1": "maybe", "2": "yes"}}
SAYS = {
    "modules.json": json.dumps([{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}]),
    "config_sentence_transformers.json": json.dumps({"model_type": "CrossEncoder"}),
}
SINCE_4 = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}}
BEFORE = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}


def card(**said: str) -> dict[str, str]:
    return {"README.md": "---\n" + "".join(f"{key}: {value}\n" for key, value in said.items()) + "---\n"}


@pytest.mark.parametrize(
    ("config", "files", "source"),
    [
        (ONE, SAYS, "config_sentence_transformers.json: CrossEncoder"),
        ({**ONE, **SINCE_4}, {}, "config.json sentence_transformers: CrossEncoder"),
        ({**ONE, **BEFORE}, {}, "config.json sbert_ce_default_activation_function: CrossEncoder"),
        (ONE, card(pipeline_tag="text-ranking"), "README pipeline_tag: text-ranking"),
        (ONE, card(library_name="sentence-transformers"), "README library_name: CrossEncoder"),
    ],
)
def test_a_head_of_one_label_ranks_where_somebody_says_so(
    tmp_path: Path, config: dict[str, object], files: dict[str, str], source: str
) -> None:
    found = profile(drop(tmp_path / "m", config, files))
    assert (found.task, found.library, found.labels) == (Task.TEXT_RANKING, "sentence-transformers", ())
    assert source in found.task_source and find_obstacle(found) == ""


@pytest.mark.parametrize("files", [SAYS, card(pipeline_tag="text-ranking"), card(library_name="sentence-transformers"), {}])
def test_a_head_of_several_labels_classifies_whatever_is_said(tmp_path: Path, files: dict[str, str]) -> None:
    assert profile(drop(tmp_path / "m", {**THREE, **(SINCE_4 if not files else {})}, files)).task is Task.TEXT_CLASSIFICATION


def test_a_head_of_one_label_of_which_nobody_says_so_classifies(tmp_path: Path) -> None:
    assert profile(drop(tmp_path / "m", ONE)).task is Task.TEXT_CLASSIFICATION


def test_two_labels_that_the_config_leaves_out_are_two(tmp_path: Path) -> None:
    bare = {key: value for key, value in ONE.items() if key != "id2label"}
    assert profile(drop(tmp_path / "m", bare, SAYS)).task is Task.TEXT_CLASSIFICATION


def test_what_its_owner_says_comes_first(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", {**ONE, **SINCE_4})
    assert profile(folder, ModelOverride(task=Task.TEXT_CLASSIFICATION)).task is Task.TEXT_CLASSIFICATION


RANKS = card(pipeline_tag="text-ranking")
CAUSAL: dict[str, object] = {**BERT, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3: dict[str, object] = {**BERT, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
LOGITS = {
    **SAYS,
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.LogitScore"},
        ]
    ),
    "1_LogitScore/config.json": json.dumps({"true_token_id": 1, "false_token_id": 2}),
    "chat_template.jinja": "{{ messages }}",
}


def test_a_decoder_ranks_by_its_next_word_where_its_files_say_how(tmp_path: Path) -> None:
    for name, config, files in (("logits", CAUSAL, LOGITS), ("qwen", QWEN3, RANKS), ("both", QWEN3, {**LOGITS, **RANKS})):
        found = profile(drop(tmp_path / name, config, files))
        assert (found.task, found.ranks_by_words, found.is_llm) == (Task.TEXT_RANKING, True, False)
        assert find_obstacle(found) == "" and found.language is None


@pytest.mark.parametrize("files", [RANKS, SAYS, {**LOGITS, "chat_template.jinja": ""}])
def test_a_decoder_of_which_nothing_says_how_it_ranks_is_refused_in_these_words(tmp_path: Path, files: dict[str, str]) -> None:
    folder = drop(tmp_path / "m", CAUSAL, files)
    if not files.get("chat_template.jinja", "x"):
        (folder / "chat_template.jinja").unlink()
    found = profile(folder)
    assert (found.task, found.ranks_by_words) == (Task.TEXT_RANKING, False)
    assert "whose files say how" in find_obstacle(found)
    chosen = profile(folder, ModelOverride(task=Task.TEXT_GENERATION))
    assert chosen.task is Task.TEXT_GENERATION


def test_a_decoder_that_nobody_calls_a_ranker_generates(tmp_path: Path) -> None:
    assert profile(drop(tmp_path / "m", QWEN3)).task is Task.TEXT_GENERATION


def test_a_ranker_with_code_of_its_own_is_no_embedder(tmp_path: Path) -> None:
    own = {**QWEN3, "architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"}}
    folder = drop(tmp_path / "m", own, {**RANKS, "modeling.py": ""})
    found = profile(folder, ModelOverride(allow_custom_code=True))
    assert found.task is Task.TEXT_RANKING and "JinaForRanking" in find_obstacle(found)


def test_its_longest_input_is_its_own(tmp_path: Path) -> None:
    limit = {"sentence_bert_config.json": json.dumps({"max_seq_length": 128})}
    assert profile(drop(tmp_path / "m", {**ONE, **SINCE_4}, limit)).max_length == 128
