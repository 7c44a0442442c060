"""A cross-encoder that learns which answer belongs to a question; sentence-transformers answers. Runs in the model runtime."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

from tests.models.common import TINY_BERT, Reference, case, fit, save, wordpiece

_PAIRS = {
    "what does a cat say?": "meow",
    "what does a dog say?": "woof",
    "what does a cow say?": "moo",
    "what does a duck say?": "quack",
}


def make_reranker(folder: Path, files: Path) -> Reference:
    """As ``CrossEncoder.save_pretrained`` writes it."""
    encoder = CrossEncoder(str(_train(folder)), device="cpu")
    encoder.save_pretrained(str(folder))
    answers = list(_PAIRS.values())
    cases = []
    for question in _PAIRS:
        ranked = [{"index": int(one["corpus_id"]), "score": float(one["score"])} for one in encoder.rank(question, answers)]
        cases.append(case({"query": question, "documents": answers}, ranked))
        assert answers[ranked[0]["index"]] == _PAIRS[question], "it has not learnt its lesson"
    return {"task": "text-ranking", "cases": cases}


def make_ranker(folder: Path, files: Path) -> Reference:
    """The same, asked as tensors; with a prompt and a shorter input than its positions."""
    encoder = CrossEncoder(
        str(_train(folder)), device="cpu", max_length=24, prompts={"ask": "what does "}, default_prompt_name="ask"
    )
    encoder.save_pretrained(str(folder))
    return _score(folder)


def make_ranker_of_logits(folder: Path, files: Path) -> Reference:
    """As the Hub's ms-marco models are: no modules, and a key of config.json that says to leave the number as it is."""
    plain = _train(folder)
    for file in plain.iterdir():
        file.rename(folder / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    reference = _score(folder)
    assert any(score < 0 for one in reference["cases"] for score in one["answer"])
    return reference


def _train(folder: Path) -> Path:
    """A plain folder beside ``folder``."""
    torch.manual_seed(3)
    tokenizer = wordpiece([*_PAIRS, *_PAIRS.values()])
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **TINY_BERT))
    all_pairs = list(itertools.product(_PAIRS, _PAIRS.values()))
    tokens = tokenizer([q for q, _ in all_pairs], [a for _, a in all_pairs], padding=True, return_tensors="pt")
    wanted = torch.tensor([float(_PAIRS[question] == answer) * 4 - 2 for question, answer in all_pairs])
    fit(model, lambda: {**tokens, "labels": wanted}, steps=60)
    plain = folder.with_name(f".{folder.name}-plain")
    save(plain, model, tokenizer)
    return plain


def _score(folder: Path) -> Reference:
    encoder = CrossEncoder(str(folder), device="cpu")
    texts = [*_PAIRS.values(), "a long answer that says meow and woof and moo " * 20]
    cases = []
    for question, documents in ((next(iter(_PAIRS)), texts), ("what does a cow say?", texts[:1])):
        scores = encoder.predict([(question, document) for document in documents]).tolist()
        cases.append(case({"QUERY": question, "DOCUMENTS": documents}, scores))
    return {"task": "text-ranking", "cases": cases}
