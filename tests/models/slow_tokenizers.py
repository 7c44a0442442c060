"""A tagger with a tokenizer that is Python's (PhoBERT's): transformers' pipeline answers, which knows no places then.

Runs in the model runtime.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PhobertTokenizer, RobertaConfig, RobertaForTokenClassification, pipeline

from tests.models.common import TINY_BERT, Reference, case, fit, rounded, save

_PEOPLE = ["Nguyễn Văn An", "Ada Lovelace"]
_PLACES = ["Hà Nội", "New York"]
_LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


def make_ner(folder: Path, files: Path) -> Reference:
    """RoBERTa that finds people and places in words that fall into pieces."""
    torch.manual_seed(51)
    sentences = [f"{who} sống ở {where} ." for who, where in itertools.product(_PEOPLE, _PLACES)]
    sentences += [f"ở {where} có {who} ." for who, where in itertools.product(_PEOPLE, _PLACES)]
    tokenizer = _tokenizer(folder, sentences)
    config = RobertaConfig(**TINY_BERT | {"vocab_size": len(tokenizer), "pad_token_id": 1, "max_position_embeddings": 66})
    config.id2label, config.label2id = _LABELS, {label: number for number, label in _LABELS.items()}
    model = RobertaForTokenClassification(config)
    encoded = tokenizer(sentences, padding=True, return_tensors="pt")
    labels = torch.full_like(encoded["input_ids"], -100)
    for number, sentence in enumerate(sentences):
        tags = _tags(sentence, tokenizer)
        labels[number, 1 : len(tags) + 1] = torch.tensor(tags)
    fit(model, lambda: {**encoded, "labels": labels}, steps=60, rate=5e-3)
    save(folder, model, tokenizer)
    ask = pipeline("token-classification", model=str(folder), device="cpu")
    cases = []
    for text, strategy in itertools.product((sentences[0], f"  {sentences[5]}", "."), ("none", "simple")):
        answer = rounded(ask(text, aggregation_strategy=strategy))
        cases.append(case({"TEXT": text}, answer, aggregation_strategy=strategy))
    return {"task": "token-classification", "cases": cases}


def _tokenizer(folder: Path, sentences: list[str]) -> Any:
    """Its two files, learnt by another library."""
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.train_from_iterator(sentences, trainers.BpeTrainer(vocab_size=70, end_of_word_suffix="</w>", show_progress=False))
    learnt = json.loads(core.to_str())["model"]
    merges = [f"{left} {right} 1" for left, right in learnt["merges"]]
    (folder / "bpe.codes").write_text("\n".join([*merges, ""]), encoding="utf-8")
    words = [word.removesuffix("</w>") if word.endswith("</w>") else f"{word}@@" for word in learnt["vocab"]]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    return PhobertTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"), model_max_length=64)


def _tags(sentence: str, tokenizer: Any) -> list[int]:
    """One a token: by the word that it is a piece of."""
    words = sentence.split(" ")
    tags = [0] * len(words)
    for first, names in ((1, _PEOPLE), (3, _PLACES)):
        for name in names:
            parts = name.split(" ")
            for place in range(len(words) - len(parts) + 1):
                if words[place : place + len(parts)] == parts:
                    tags[place : place + len(parts)] = [first, *[first + 1] * (len(parts) - 1)]
    found = []
    for word, tag in zip(words, tags, strict=True):
        pieces = len(tokenizer.tokenize(word))
        found += [tag, *[tag + 1 if tag in (1, 3) else tag] * (pieces - 1)]
    return found
