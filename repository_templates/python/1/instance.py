"""A transformers model behind Triton's python backend: one file for every task, the table is in ``tasks``.

What enters: ``parameters`` of config.pbtxt (``Settings``), then requests whose tensors are those of modelium/signatures.py.
What leaves: one response a request, in order. Requests that Triton gives together are computed together; a fault in one is
that one's error and nobody else's.
"""

from __future__ import annotations

# isort: off
from . import start  # (first: the locale, the environment, quick imports)
# isort: on

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from .arrays import arrays_of, rows_of
from .contract import Answer, BadInput, BadOutput, Row, TaskModel
from .finite import check_outputs
from .tasks import load_task, read_settings, rehearse_task, take_cores


class TritonPythonModel:
    """What Triton calls. One process holds one instance, so nothing here is shared or locked."""

    def initialize(self, args: dict[str, str]) -> None:
        start.settle()
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        settings = read_settings(given, _device(args["model_instance_kind"], args["model_instance_device_id"]))
        take_cores(given.get("torch_threads", ""))
        self._inputs: list[str] = [one["name"] for one in config["input"] if one["name"] != "PARAMETERS"]
        self._batches = int(config.get("max_batch_size", 0)) > 0
        self._task: TaskModel = load_task(settings)
        self._kind = settings.task
        self._rehearsed = [one["name"] for one in config["input"] if not one.get("optional") or one["name"] == "IMAGE"]

    def rehearse(self) -> None:
        """One inference whose answer nobody wants. To be called at any time before the first request, or never."""
        trouble = rehearse_task(self._task, self._kind, self._rehearsed)
        if trouble is not None:
            pb_utils.Logger.log_warn(f"the rehearsal before the first request went wrong: {trouble}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        rows: dict[int, list[Row]] = {}
        for number, request in enumerate(requests):
            if request.is_cancelled():
                responses[number] = _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            try:
                rows[number] = rows_of(self._read(request), request.is_cancelled)
            except BadInput as error:
                responses[number] = _error(str(error), pb_utils.TritonError.INVALID_ARG)
            except Exception as error:  # its neighbours are answered
                responses[number] = _error(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        for number, response in self._respond(rows).items():
            responses[number] = response
        return responses

    def finalize(self) -> None:
        del self._task

    def _respond(self, rows: dict[int, list[Row]]) -> dict[int, Any]:
        """All rows in one go; if that breaks, each request by itself, so that only the one that breaks it fails."""
        if not rows:
            return {}
        try:
            with torch.inference_mode():
                answers = iter(self._task.answer([row for several in rows.values() for row in several]))
            return {number: self._response([next(answers) for _ in several]) for number, several in rows.items()}
        except Exception as error:
            if len(rows) == 1:
                number = next(iter(rows))
                if isinstance(error, BadInput):
                    return {number: _fault(error)}
                detail = f"{type(error).__name__}: {error}"
                pb_utils.Logger.log_error(f"a request failed: {detail}")
                return {number: _error(detail, pb_utils.TritonError.INTERNAL)}
        return {number: self._respond({number: several})[number] for number, several in rows.items()}

    def _read(self, request: Any) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name in (*self._inputs, "PARAMETERS"):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                array = tensor.as_numpy()
                values[name] = array if self._batches else array[None]
        return values

    def _response(self, answers: list[Answer | BadInput]) -> Any:
        try:
            arrays = arrays_of(answers)
            check_outputs(arrays)
        except BadInput as error:
            return _fault(error)
        tensors = [pb_utils.Tensor(name, array if self._batches else array[0]) for name, array in arrays.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _device(kind: str, device_id: str) -> str:
    if kind == "CPU" or (kind != "GPU" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("this entry asks for a GPU, but torch in the model runtime sees none")
    return f"cuda:{device_id}"


def _fault(error: BadInput) -> Any:
    """UNKNOWN is for numbers that are none, and nothing else here answers with it: that is how a client tells them apart."""
    if isinstance(error, BadOutput):
        pb_utils.Logger.log_error(str(error))
        return _error(str(error), pb_utils.TritonError.UNKNOWN)
    return _error(str(error), pb_utils.TritonError.INVALID_ARG)


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
