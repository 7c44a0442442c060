"""transformers folders whose only weights are ONNX graphs; the torch models that they were exported from answer.

Runs in the model runtime.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import quantize_dynamic
from sentence_transformers import SentenceTransformer, models
from transformers import BertConfig, BertForSequenceClassification, BertModel, pipeline

from tests.models.common import TINY_BERT, Reference, case, rounded, save, wordpiece
from tests.models.sentences import TEXTS

_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class _Graph(torch.nn.Module):
    """What is exported: tensors in a tensor out, the mask as numbers (a trace would keep whether it has a zero)."""

    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self._model, self._output = model, output

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        seen = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
        output = self._model(input_ids=input_ids, attention_mask=seen, token_type_ids=token_type_ids)
        found: torch.Tensor = getattr(output, self._output)
        return found


def make_sentences(folder: Path, files: Path) -> Reference:
    """As optimum leaves an embedder: everything but the torch weights, and ``onnx/`` with a quantized variant."""
    torch.manual_seed(71)
    tokenizer = wordpiece(TEXTS, size=300)
    plain = folder.parent / ".plain"
    save(plain, BertModel(BertConfig(vocab_size=len(tokenizer), attn_implementation="eager", **TINY_BERT)), tokenizer)
    transformer = models.Transformer(str(plain), max_seq_length=32, model_args={"attn_implementation": "eager"})
    model = SentenceTransformer(
        modules=[transformer, models.Pooling(48, pooling_mode="mean"), models.Normalize()], device="cpu"
    )
    model.save(str(folder))
    cases = [case({"TEXT": text}, model.encode(text).tolist()) for text in TEXTS]
    _export(transformer.auto_model, "last_hidden_state", ["batch", "sequence"], folder)
    quantize_dynamic(folder / "onnx" / "model.onnx", folder / "onnx" / "model_quantized.onnx")
    return {"task": "sentence-similarity", "cases": cases}


def make_classifier(folder: Path, files: Path) -> Reference:
    """A classifier with three classes."""
    torch.manual_seed(72)
    tokenizer = wordpiece(TEXTS, size=300)
    names = dict(enumerate(["good", "bad", "ugly"]))
    config = BertConfig(vocab_size=len(tokenizer), attn_implementation="eager", id2label=names, **TINY_BERT)
    config.label2id = {name: number for number, name in names.items()}
    model = BertForSequenceClassification(config)
    save(folder, model, tokenizer)
    ask = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    cases = [case({"TEXT": text}, rounded(ask([text])[0])) for text in TEXTS[:4]]
    _export(model, "logits", ["batch"], folder)
    return {"task": "text-classification", "cases": cases}


def _export(model: Any, output: str, dims: list[str], folder: Path) -> None:
    """``onnx/model.onnx`` in place of the torch weights."""
    (folder / "onnx").mkdir()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]])
    axes = {name: {0: "batch", 1: "sequence"} for name in _INPUTS} | {output: dict(enumerate(dims))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(model, output).eval(),
            (ids, (ids > 0).long(), torch.zeros_like(ids)),
            folder / "onnx" / "model.onnx",
            input_names=_INPUTS,
            output_names=[output],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    (folder / "model.safetensors").unlink()
