"""A cross-encoder that learns which answer belongs to a question; sentence-transformers answers. Runs in the model runtime."""

from __future__ import annotations

import itertools
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
    torch.manual_seed(3)
    tokenizer = wordpiece([*_PAIRS, *_PAIRS.values()])
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **TINY_BERT))
    all_pairs = list(itertools.product(_PAIRS, _PAIRS.values()))
    tokens = tokenizer([q for q, _ in all_pairs], [a for _, a in all_pairs], padding=True, return_tensors="pt")
    wanted = torch.tensor([float(_PAIRS[question] == answer) * 4 - 2 for question, answer in all_pairs])
    fit(model, lambda: {**tokens, "labels": wanted}, steps=60)
    plain = folder.with_name(f".{folder.name}-plain")
    save(plain, model, tokenizer)
    encoder = CrossEncoder(str(plain), device="cpu")
    encoder.save_pretrained(str(folder))
    answers = list(_PAIRS.values())
    cases = []
    for question in _PAIRS:
        ranked = [{"index": int(one["corpus_id"]), "score": float(one["score"])} for one in encoder.rank(question, answers)]
        cases.append(case({"query": question, "documents": answers}, ranked))
        assert answers[ranked[0]["index"]] == _PAIRS[question], "it has not learnt its lesson"
    return {"task": "text-ranking", "cases": cases}
