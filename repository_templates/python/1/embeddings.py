"""Text → one vector, as sentence-transformers computes it: tokens, pooling, dense layers, length 1.

What enters: rows with TEXT. What leaves: EMBEDDING.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .batching import Encoding, Text, run_in_buckets
from .contract import Answer, BadInput, Row, Settings, attempt, parse_parameters
from .loading import load_model, load_processor, move, read_tensors

_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
}
_POOLINGS = ("mean", "cls", "max", "lasttoken")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedParameters:
    normalize: bool | None = None
    truncate: bool = True
    truncation_direction: str | None = None
    prompt_name: str | None = None


class Embeddings:
    """feature-extraction and sentence-similarity."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.model_path)
        self._model = load_model(settings, "AutoModel")
        self._text = Text.of(load_processor(settings, "AutoTokenizer"), settings, self._model)
        self._pooling = settings.pooling or "mean"
        if self._pooling not in _POOLINGS:
            raise RuntimeError(f"pooling {self._pooling!r} is none of {', '.join(_POOLINGS)}")
        self._normalize = settings.normalize
        self._dense = _dense_layers(folder, self._model)
        self._lower_case = bool(_read_json(folder / "sentence_bert_config.json").get("do_lower_case", False))
        prompts = _read_json(folder / "config_sentence_transformers.json")
        self._prompts: dict[str, str] = prompts.get("prompts") or {}
        self._default_prompt: str = prompts.get("default_prompt_name") or ""
        self._side = self._text.tokenizer.truncation_side

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        vectors = run_in_buckets(self._text, [encoding for encoding, _ in good.values()], self._forward)
        for (index, (_, normalize)), vector in zip(good.items(), vectors, strict=True):
            answers[index] = {"EMBEDDING": (torch.nn.functional.normalize(vector, dim=0) if normalize else vector).numpy()}
        return answers

    def _read(self, row: Row) -> tuple[Encoding, bool]:
        parameters = parse_parameters(EmbedParameters, row.parameters)
        name = parameters.prompt_name or self._default_prompt
        if name and name not in self._prompts:
            known = f"this model has {', '.join(sorted(self._prompts))}" if self._prompts else "this model has no prompts"
            raise BadInput(f"parameter 'prompt_name': no prompt {name!r}; {known}")
        side = parameters.truncation_direction or self._side
        if side not in ("left", "right"):
            raise BadInput(f"parameter 'truncation_direction' must be left or right, found {side!r}")
        self._text.tokenizer.truncation_side = side
        text = ((self._prompts[name] if name else "") + row.text("TEXT")).strip()
        encoding = self._text.encode(text.lower() if self._lower_case else text, truncate=parameters.truncate)
        return encoding, self._normalize if parameters.normalize is None else parameters.normalize

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = move(batch, self._model)
        tokens = self._model(**inputs).last_hidden_state
        vectors = pool(tokens, inputs["attention_mask"], self._pooling)
        for layer in self._dense:
            vectors = layer(vectors)
        return vectors.float().cpu()


def pool(tokens: torch.Tensor, attention: torch.Tensor, mode: str) -> torch.Tensor:
    """Token vectors → one vector a row, padding left out."""
    mask = attention.unsqueeze(-1).to(tokens.dtype)
    match mode:
        case "cls":
            return tokens[torch.arange(len(tokens)), attention.argmax(dim=1)]
        case "lasttoken":
            last = attention.shape[1] - 1 - attention.flip(1).argmax(dim=1)
            return tokens[torch.arange(len(tokens)), last]
        case "max":
            return tokens.masked_fill(mask == 0, -1e9).amax(dim=1)
        case _:
            return (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _dense_layers(folder: Path, model: Any) -> list[torch.nn.Module]:
    """sentence-transformers' Dense modules (LaBSE, sentence-t5 …). A module that is not known here is refused at load."""
    listed = folder / "modules.json"
    layers: list[torch.nn.Module] = []
    for module in json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []:
        match str(module["type"]).rpartition(".")[2]:
            case "Transformer" | "Pooling" | "Normalize":
                continue
            case "Dense":
                layers.append(_load_dense(folder / module["path"]).to(model.device, model.dtype))
            case kind:
                raise RuntimeError(f"modules.json names {kind}, which Modelium cannot compute")
    return layers


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
