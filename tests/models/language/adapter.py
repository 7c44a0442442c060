"""A LoRA adapter on a causal model, in the layout that PEFT writes; the reference is the merged weights. Runs in the model
runtime, which has no PEFT.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.models.language.corpus import PIRATE_CHATS, PIRATE_SONG
from tests.models.language.writing import continuation, conversation, document, learn, reply

_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_RANK = 8
_ALPHA = 16
NAME = "tiny-pirate"


class _Adapted(nn.Module):
    """``base(x) + alpha / rank · B(A(x))``."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.randn(_RANK, base.in_features) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, _RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.lora_A.T @ self.lora_B.T) * (_ALPHA / _RANK)

    def merged(self) -> nn.Linear:
        self.base.weight.data += self.lora_B.data @ self.lora_A.data * (_ALPHA / _RANK)
        return self.base


def write_adapter(base_folder: Path, base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach copies of a model's layers another song; leave folder and reference beside the base's folder."""
    model = copy.deepcopy(base).requires_grad_(False)
    adapted: dict[str, _Adapted] = {}
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in _TARGETS:
            adapted[name] = _Adapted(module)
            _replace(model, name, adapted[name])
    rows = [document(tokenizer, PIRATE_SONG), *(conversation(tokenizer, chat) for chat in PIRATE_CHATS)]
    weights = [weight for one in adapted.values() for weight in (one.lora_A, one.lora_B)]
    learn(lambda x, labels: model(input_ids=x, labels=labels, use_cache=False).loss, weights, rows, steps=80, rate=1e-2)

    folder = base_folder.parent / NAME
    folder.mkdir()
    tensors = {}
    for name, one in adapted.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.lora_A.data.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.lora_B.data.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base_folder.name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _ALPHA,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": _RANK,
        "target_modules": list(_TARGETS),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    for name, one in adapted.items():
        _replace(model, name, one.merged())
    cases = [continuation(model, tokenizer, "The old lighthouse", length=60)]
    cases += [reply(model, tokenizer, chat) for chat in PIRATE_CHATS]
    reference = {"task": "text-generation", "base": base_folder.name, "cases": cases}
    text = json.dumps(reference, indent=1, ensure_ascii=False)
    (base_folder.parent / f"{NAME}.reference.json").write_text(text, encoding="utf-8")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
