"""Text → one vector, as sentence-transformers computes it: tokens, pooling, dense layers, length 1.

What enters: rows with TEXT. What leaves: EMBEDDING.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .batching import Encoding, group, run_in_buckets
from .contract import Answer, BadInput, Row, Settings, attempt, parse_parameters
from .loading import load_text_model, move, read_tensors
from .prompts import PromptParameters, Prompts

_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
}
_POOLINGS = ("mean", "cls", "max", "lasttoken")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedParameters(PromptParameters):
    normalize: bool | None = None
    truncate: bool = True
    truncation_direction: str | None = None


def check(parameters: EmbedParameters) -> EmbedParameters:
    side = parameters.truncation_direction
    if side not in (None, "left", "right"):
        raise BadInput(f"parameter 'truncation_direction' must be left or right, found {side!r}")
    return parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    encoding: Encoding
    normalize: bool
    left_out: int  # tokens at the front that are read, but not pooled


class Embeddings:
    """feature-extraction and sentence-similarity."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.model_path)
        self._model, self._text = load_text_model(settings, "AutoModel")
        self._pooling = settings.pooling or "mean"
        if self._pooling not in _POOLINGS:
            raise RuntimeError(f"pooling {self._pooling!r} is none of {', '.join(_POOLINGS)}")
        self._normalize = settings.normalize
        self._dense = _dense_layers(folder, self._model)
        self._lower_case = bool(_read_json(folder / "sentence_bert_config.json").get("do_lower_case", False))
        self._prompts = Prompts(settings.model_path)
        self._pools_prompt = _pools_prompt(folder)
        self._side = self._text.tokenizer.truncation_side

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        for left_out, members in group({i: asked.left_out for i, asked in good.items()}).items():
            forward = partial(self._forward, left_out=left_out)
            vectors = run_in_buckets(self._text, [good[i].encoding for i in members], forward)
            for index, vector in zip(members, vectors, strict=True):
                length_1 = torch.nn.functional.normalize(vector, dim=0) if good[index].normalize else vector
                answers[index] = {"EMBEDDING": length_1.numpy()}
        return answers

    def _read(self, row: Row) -> _Asked:
        parameters = check(parse_parameters(EmbedParameters, row.parameters))
        prompt = self._prompts.choose(parameters)
        self._text.tokenizer.truncation_side = parameters.truncation_direction or self._side
        text = self._as_read((prompt + row.text("TEXT")).strip())
        return _Asked(
            encoding=self._text.encode(text, truncate=parameters.truncate),
            normalize=self._normalize if parameters.normalize is None else parameters.normalize,
            left_out=0 if self._pools_prompt or not prompt else self._tokens_of(prompt),
        )

    def _as_read(self, text: str) -> str:
        return text.lower() if self._lower_case else text

    def _tokens_of(self, prompt: str) -> int:
        """A prompt's tokens with what stands before it, without what would end it: sentence-transformers' own count."""
        ids = self._text.encode(self._as_read(prompt))["input_ids"]
        return len(ids) - (bool(ids) and ids[-1] in self._text.tokenizer.all_special_ids)

    def _forward(self, batch: dict[str, torch.Tensor], left_out: int) -> torch.Tensor:
        inputs = move(batch, self._model)
        tokens = self._model(**inputs).last_hidden_state
        attention = inputs["attention_mask"]
        vectors = pool(tokens, without_first(attention, left_out) if left_out else attention, self._pooling)
        for layer in self._dense:
            vectors = layer(vectors)
        return vectors.float().cpu()


def without_first(attention: torch.Tensor, count: int) -> torch.Tensor:
    """The mask without each row's first ``count`` tokens, wherever its padding is."""
    return attention * (attention.cumsum(dim=1) > count)


def pool(tokens: torch.Tensor, attention: torch.Tensor, mode: str) -> torch.Tensor:
    """Token vectors → one vector a row, padding left out."""
    mask = attention.unsqueeze(-1).to(tokens.dtype)
    match mode:
        case "cls":
            return tokens[torch.arange(len(tokens)), attention.argmax(dim=1)]
        case "lasttoken":
            last = attention.shape[1] - 1 - attention.flip(1).argmax(dim=1)
            return (tokens * mask)[torch.arange(len(tokens)), last]
        case "max":
            return tokens.masked_fill(mask == 0, -torch.inf).amax(dim=1)
        case _:
            return (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _dense_layers(folder: Path, model: Any) -> list[torch.nn.Module]:
    """sentence-transformers' Dense modules (LaBSE, sentence-t5 …). A module that is not known here is refused at load."""
    listed = folder / "modules.json"
    layers: list[torch.nn.Module] = []
    for module in json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []:
        match str(module["type"]).rpartition(".")[2]:
            case "Transformer" | "Pooling" | "Normalize" | "Dropout":
                continue
            case "Dense":
                layers.append(_load_dense(folder / module["path"]).to(model.device, model.dtype))
            case kind:
                raise RuntimeError(f"modules.json names {kind}, which Modelium cannot compute")
    return layers


def _pools_prompt(folder: Path) -> bool:
    """Whether a prompt's tokens are pooled with the text's (INSTRUCTOR and its like: no)."""
    listed = folder / "modules.json"
    for module in json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []:
        if str(module["type"]).rpartition(".")[2] == "Pooling":
            return _read_json(folder / module["path"] / "config.json").get("include_prompt") is not False
    return True


def _load_dense(folder: Path) -> torch.nn.Module:
    config = _read_json(folder / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise RuntimeError(f"{folder.name}: activation {activation!r} is not known")
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    safe = folder / "model.safetensors"
    weights = read_tensors(safe if safe.is_file() else folder / "pytorch_model.bin")
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in weights.items()})
    return torch.nn.Sequential(linear, _ACTIVATIONS[activation]()).eval().requires_grad_(False)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}
