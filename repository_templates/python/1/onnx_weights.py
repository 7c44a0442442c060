"""A model of transformers whose weights are an ONNX graph: what the tasks call like a PreTrainedModel, run by onnxruntime.

What enters: a folder's config and the graph's file. What leaves: an object that takes a batch of tokens and answers with
``last_hidden_state`` or ``logits``. It runs on the CPU, except where this onnxruntime has CUDA and a GPU was asked for.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

_INTEGERS = {"tensor(int64)": torch.int64, "tensor(int32)": torch.int32}


class OnnxModel:
    """The part of a PreTrainedModel's surface that text tasks use."""

    def __init__(self, file: Path, config: Any, device: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other models have the same cores
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] if device != "cpu" else []
        providers = [one for one in (*wanted, "CPUExecutionProvider") if one in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        self._inputs = {one.name: _INTEGERS.get(one.type, torch.int64) for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        self.config = config
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.modelium_missing: frozenset[str] = frozenset()

    def __call__(self, **batch: torch.Tensor) -> SimpleNamespace:
        none = torch.zeros_like(batch["input_ids"])  # token types, of a tokenizer that has none
        given = {name: batch.get(name, none).to(kind).numpy() for name, kind in self._inputs.items()}
        found = self._session.run(None, given)
        named = {name: torch.from_numpy(value) for name, value in zip(self._outputs, found, strict=True)}
        answer = {name: value.float() if value.is_floating_point() else value for name, value in named.items()}
        if "token_embeddings" in answer:  # sentence-transformers' word for it
            answer.setdefault("last_hidden_state", answer["token_embeddings"])
        return SimpleNamespace(**answer)
