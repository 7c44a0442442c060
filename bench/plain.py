"""What stock Triton does with MiniLM: an entry for its python backend as guides show one, in a server without Modelium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from served import ROOT, minilm

from modelium.config import TritonSettings
from modelium.triton.embedded import EmbeddedServer

_NAME = "plain"
_CONFIG = """\
name: "plain"
backend: "python"
max_batch_size: 16
input [{ name: "TEXT" data_type: TYPE_STRING dims: [1] }]
output [{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU }]
parameters [{ key: "folder" value: { string_value: %s } }]
"""
_MODEL = """\
import json

import torch
import triton_python_backend_utils as pb_utils
from transformers import AutoModel, AutoTokenizer


class TritonPythonModel:
    def initialize(self, args):
        folder = json.loads(args["model_config"])["parameters"]["folder"]["string_value"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def execute(self, requests):
        responses = []
        for request in requests:
            texts = [row[0].decode() for row in pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()]
            tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                states = self.model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
            tensor = pb_utils.Tensor("EMBEDDING", means.numpy())
            responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
        return responses
"""


class Plain:
    """A running Triton with MiniLM in such an entry, not loaded."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    def turn(self) -> tuple[float, float]:
        """Load, ask once, unload: the seconds of the load, and of both."""
        headers = dict(self._server.headers)
        with grpcclient.InferenceServerClient(self._server.grpc_url) as triton:
            began = time.perf_counter()
            triton.load_model(_NAME, headers=headers)
            loaded = time.perf_counter()
            text = grpcclient.InferInput("TEXT", [1, 1], "BYTES")
            text.set_data_from_numpy(np.array([[b"is anybody there?"]], dtype=object))
            triton.infer(_NAME, [text])
            answered = time.perf_counter()
            triton.unload_model(_NAME, headers=headers)
            while triton.is_model_ready(_NAME, headers=headers):
                time.sleep(0.02)
        return loaded - began, answered - began


@contextlib.contextmanager
def plain() -> Iterator[Plain]:
    with tempfile.TemporaryDirectory(prefix="modelium-bench-") as directory, asyncio.Runner() as runner:
        place = Path(directory)
        entry = place / "repository" / _NAME
        (entry / "1").mkdir(parents=True)
        (entry / "config.pbtxt").write_text(_CONFIG % json.dumps(str(minilm())))
        (entry / "1" / "model.py").write_text(_MODEL)
        server = EmbeddedServer(
            TritonSettings(
                http_url="127.0.0.1:0",
                grpc_url="127.0.0.1:0",
                metrics_url="127.0.0.1:0",
                model_repository=place / "repository",
                state_directory=place / "state",
                runtime_directory=ROOT / ".runtime",
                nursery=False,
            )
        )
        runner.run(server.start())
        try:
            yield Plain(server)
        finally:
            runner.run(server.stop())
