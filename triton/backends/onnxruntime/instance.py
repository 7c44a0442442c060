"""A model of Triton's onnxruntime backend, for a server that comes without the C++ one.

What enters: an entry as the stock backend has it (``1/model.onnx``, the same tensors and parameters) and requests. What leaves:
the answers of onnxruntime. Requests of one batch are joined where their shapes allow and answered one by one; a request that
cannot be computed gets its own error and takes no other with it.

Differences to the stock backend: an unknown execution accelerator is logged instead of stopping the load; strings have to be
UTF-8 (onnxruntime's Python interface knows no others); BF16, ragged batches and sequence batching are not there; external data
are read, not mapped (``private_pages``).
"""

import locale
import os

# The stub's interpreter starts in the C locale, where open() means ascii; this has to come before the other imports.
locale.setlocale(locale.LC_ALL, "C.UTF-8")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its Linux builds send what they load to their makers

import json  # noqa: E402
from collections import defaultdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import onnx_session  # noqa: E402
import private_pages  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
_DEFAULT_MAX_BATCH_SIZE = 4  # the stock backend's default-max-batch-size


class TritonPythonModel:
    """One instance: one session."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the graph says, when the configuration names no inputs or no outputs (as the stock backend does).

        1. The model can batch when the first dimension of every input and output is free; the largest batch is then 4, unless
           the configuration says more, and dynamic batching is on.
        2. A largest batch on a model that cannot batch is an error.
        """
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        path = onnx_session.find_model(config, Path(pb_utils.get_model_dir()))
        session = onnx_session.open_session(config, path, gpu=None, log=pb_utils.Logger.log_warn)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in (*inputs, *outputs)):  # 1
            if config["max_batch_size"] == 0:
                auto_complete_model_config.set_max_batch_size(_DEFAULT_MAX_BATCH_SIZE)
            if config["max_batch_size"] > 1 and "sequence_batching" not in config:
                auto_complete_model_config.set_dynamic_batching()
        elif config["max_batch_size"]:  # 2
            raise ValueError(
                f"autofill failed for model '{config['name']}': model does not support batching while non-zero "
                "max_batch_size is specified"
            )
        for kind, tensors in (("input", inputs), ("output", outputs)):
            if not config[kind]:
                config[kind].extend(_describe(tensor, batches=config["max_batch_size"] > 0) for tensor in tensors)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session and hold the configuration against the graph."""
        self._config = json.loads(args["model_config"])
        path = onnx_session.find_model(self._config, Path(args["model_repository"]) / args["model_version"])
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        self._session = onnx_session.open_session(self._config, path, gpu=gpu, log=pb_utils.Logger.log_warn)
        private_pages.own(path.resolve().parent)
        self._run_options = onnx_session.run_options(self._config)
        self._batches = self._config["max_batch_size"] > 0
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        initializers = {tensor.name: tensor for tensor in self._session.get_overridable_initializers()}
        outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        _check(self._config, "input", inputs | initializers)
        _check(self._config, "output", outputs)
        given = {tensor["name"] for tensor in self._config["input"]}
        if absent := sorted(set(inputs) - given):
            raise ValueError(
                f"unable to load model '{self._config['name']}', the graph needs inputs that config.pbtxt lacks: {absent}"
            )
        self._inputs = inputs | initializers
        self._output_names = [tensor["name"] for tensor in self._config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; those with equal shapes in one run."""
        responses: dict[int, Any] = {}
        groups: dict[tuple[Any, ...], list[tuple[int, dict[str, np.ndarray], Any]]] = defaultdict(list)
        for index, request in enumerate(requests):
            try:
                feed = {tensor.name(): self._read(tensor) for tensor in request.inputs()}
            except ValueError as error:
                responses[index] = _refuse(error)
                continue
            # The batch dimension may differ within a group; without batching each request is a group of its own.
            key = tuple((name, array.shape[1:]) for name, array in sorted(feed.items())) if self._batches else (index,)
            groups[key].append((index, feed, request))
        for group in groups.values():
            responses.update(self._answer(group))
        return [responses[index] for index in range(len(requests))]

    def finalize(self) -> None:
        """Give the session's memory back before the process ends."""
        del self._session

    def _answer(self, group: list[tuple[int, dict[str, np.ndarray], Any]]) -> dict[int, Any]:
        wanted = {name for _, _, request in group for name in request.requested_output_names()}
        names = [name for name in self._output_names if name in wanted]
        sizes = [next(iter(feed.values())).shape[0] if self._batches else 1 for _, feed, _ in group]
        try:
            feed = (
                {name: np.concatenate([feed[name] for _, feed, _ in group]) for name in group[0][1]}
                if len(group) > 1
                else group[0][1]
            )
            results = dict(zip(names, self._session.run(names, feed, self._run_options), strict=True))
        except Exception as error:
            if len(group) == 1:
                return {group[0][0]: _refuse(error)}
            results = {}
        # One bad request spoils a joint run, and a graph may promise a batch dimension that it doesn't keep: then one by one.
        if len(group) > 1 and (not results or any(np.shape(array)[:1] != (sum(sizes),) for array in results.values())):
            return {index: response for member in group for index, response in self._answer([member]).items()}
        responses = {}
        start = 0
        for (index, _, request), size in zip(group, sizes, strict=True):
            rows = slice(start, start + size) if len(group) > 1 else slice(None)
            start += size
            asked = set(request.requested_output_names())
            tensors = [
                _tensor(name, array[rows] if np.ndim(array) else array) for name, array in results.items() if name in asked
            ]
            responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)
        return responses

    def _read(self, tensor: Any) -> np.ndarray:
        """A tensor as the graph takes it: strings as text, a scalar without the dimension that Triton needs."""
        array: np.ndarray = tensor.as_numpy()
        graph = self._inputs[tensor.name()]
        if graph.type == "tensor(string)":
            try:
                array = np.array([value.decode() for value in array.ravel()], dtype=object).reshape(array.shape)
            except UnicodeDecodeError as error:
                raise ValueError(f"input '{tensor.name()}' is not UTF-8: {error}") from error
        return array.reshape(()) if not graph.shape and array.size == 1 and not self._batches else array


def _tensor(name: str, array: np.ndarray) -> Any:
    array = np.atleast_1d(array)  # a scalar has dims [1] in config.pbtxt
    if array.dtype == object:
        array = np.array([value.encode() for value in array.ravel()], dtype=object).reshape(array.shape)
    return pb_utils.Tensor(name, np.ascontiguousarray(array))


def _refuse(error: Exception) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnxruntime: {error}"))


def _describe(tensor: Any, *, batches: bool) -> dict[str, Any]:
    if tensor.type not in _TYPES:
        raise ValueError(f"'{tensor.name}' is a {tensor.type}, which Triton cannot carry")
    dims = [size if isinstance(size, int) else -1 for size in tensor.shape[1 if batches else 0 :]]
    described: dict[str, Any] = {"name": tensor.name, "data_type": _TYPES[tensor.type], "dims": dims or [1]}
    if batches and not dims:
        described["reshape"] = {"shape": []}
    return described


def _check(config: dict[str, Any], kind: str, graph: dict[str, Any]) -> None:
    """Names, types and shapes of the configuration against the graph's: a mistake shows at load, not at the first request."""
    prefix = f"unable to load model '{config['name']}', "
    for tensor in config[kind]:
        name = tensor["name"]
        if name not in graph:
            raise ValueError(f"{prefix}unexpected {kind} '{name}'; the graph has {', '.join(sorted(graph))}")
        if graph[name].type not in _TYPES:
            raise ValueError(f"{prefix}{kind} '{name}' is a {graph[name].type}, which this backend cannot carry")
        if tensor["data_type"] != _TYPES[graph[name].type]:
            raise ValueError(
                f"{prefix}configuration expects datatype {tensor['data_type']} for {kind} '{name}', "
                f"model provides {_TYPES[graph[name].type]}"
            )
        dims = tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"]
        expected = ([-1] if config["max_batch_size"] > 0 else []) + [int(size) for size in dims]
        shape = [size if isinstance(size, int) else -1 for size in graph[name].shape]
        scalar = not shape and all(size == 1 for size in expected)
        clash = any(a != b for a, b in zip(expected, shape, strict=False) if -1 not in (a, b))
        if not scalar and (len(expected) != len(shape) or clash):
            raise ValueError(
                f"{prefix}{kind} '{name}': the model expects shape {shape} but the model configuration specifies {expected}"
            )
