"""Bare graphs (ONNX): nested lists enter under the inputs' names, nested lists leave under the outputs' names.

Shapes are the graph's own, batch dimension included, exactly as onnxruntime's ``session.run`` takes and gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelium.errors import InvalidBody
from modelium.gateway.codecs.call import Call, Tensors
from modelium.gateway.codecs.fields import nearest, shown, string, wrong
from modelium.values import OnnxGraph, Tensor

_DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def encode_tensors(graph: OnnxGraph, inputs: object) -> Call:
    """The call for ``inputs``: an object by input name, or the bare list where the graph has one input."""
    arrays: dict[str, NDArray[Any]] = {}
    names = [tensor.name for tensor in graph.inputs]
    if isinstance(inputs, dict):
        for name in inputs:
            if name not in names:
                raise InvalidBody(f"the model has no such input{nearest(name, names)}", field=f"inputs.{shown(name)}")
        for tensor in graph.inputs:
            if inputs.get(tensor.name) is not None:
                arrays[tensor.name] = _array(tensor, inputs[tensor.name], f"inputs.{tensor.name}")
            elif not tensor.optional:
                raise InvalidBody("is missing", field=f"inputs.{tensor.name}")
    elif len(names) == 1:
        arrays[names[0]] = _array(graph.inputs[0], inputs, "inputs")
    else:
        raise wrong("inputs", f"an object with {', '.join(names)}", inputs)
    rows = {len(array) for array in arrays.values()} if graph.dynamic_batch else {1}
    if len(rows) != 1:
        raise InvalidBody(f"all need the same first dimension, found {', '.join(map(str, sorted(rows)[:5]))}", field="inputs")
    scalars = _scalars(graph, graph.inputs)
    return Call(
        inputs={name: array[..., np.newaxis] if name in scalars else array for name, array in arrays.items()},
        rows=rows.pop(),
        splits=graph.dynamic_batch,
        answer=lambda chunks: _answer(chunks, _scalars(graph, graph.outputs)),
    )


def _scalars(graph: OnnxGraph, tensors: Sequence[Tensor]) -> frozenset[str]:
    """Tensors that are one number, or one number a row: Triton has none without dims, so they travel with one of size 1."""
    return frozenset(tensor.name for tensor in tensors if len(tensor.dims) == (1 if graph.dynamic_batch else 0))


def _answer(chunks: Sequence[Tensors], scalars: frozenset[str]) -> object:
    whole = {
        name: np.concatenate([chunk[name] for chunk in chunks]) if len(chunks) > 1 else chunks[0][name] for name in chunks[0]
    }
    return {name: _plain(array[..., 0] if name in scalars else array) for name, array in whole.items()}


def _plain(array: NDArray[Any]) -> object:
    """Arrays of numbers stay arrays, which the JSON writer prints fast; strings become text."""
    if array.dtype == np.object_:
        return np.vectorize(_text, otypes=[object])(array).tolist()
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _text(item: object) -> object:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else item


def _array(tensor: Tensor, value: object, field: str) -> NDArray[Any]:
    try:
        # As objects, strings keep their length: numpy's own string type drops trailing NULs.
        array = np.asarray(value, dtype=np.object_ if tensor.datatype == "BYTES" else None)
    except ValueError as error:  # ragged
        raise InvalidBody(f"the lists are not all of one length; expected {_shape(tensor.dims)}", field=field) from error
    converted = _strings(array, field) if tensor.datatype == "BYTES" else _numbers(array, tensor.datatype, field)
    fits = array.ndim == len(tensor.dims) and all(
        want in (-1, have) for want, have in zip(tensor.dims, array.shape, strict=True)
    )
    if not fits:
        raise InvalidBody(f"expected the shape {_shape(tensor.dims)}, found {_shape(array.shape)}", field=field)
    if array.size == 0:
        raise InvalidBody("holds no values", field=field)
    return converted


def _shape(dims: Sequence[int]) -> str:
    return f"[{', '.join('any' if dim < 0 else str(dim) for dim in dims)}]"


def _strings(array: NDArray[Any], field: str) -> NDArray[Any]:
    encoded = np.empty(array.size, dtype=np.object_)
    for index, item in enumerate(array.ravel()):
        encoded[index] = string(item, field).encode()
    return encoded.reshape(array.shape)


def _numbers(array: NDArray[Any], datatype: str, field: str) -> NDArray[Any]:
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InvalidBody(f"{datatype} has no form in JSON; use Triton's own port for this model", field=field)
    if array.dtype.kind not in "biuf":
        raise InvalidBody("expected numbers only", field=field)
    if array.dtype.kind == "f" and np.issubdtype(dtype, np.integer):
        raise InvalidBody(f"expected whole numbers ({datatype}), found fractions", field=field)
    if datatype == "BOOL" and array.dtype.kind != "b":
        raise InvalidBody("expected true or false", field=field)
    if array.size and datatype != "BOOL":
        low, high = _limits(dtype)
        if array.min() < low or array.max() > high:
            raise InvalidBody(f"does not fit into {datatype} ({low:g} … {high:g})", field=field)
    return array.astype(dtype)


def _limits(dtype: type[np.generic]) -> tuple[float, float]:
    limits = np.iinfo(np.dtype(dtype)) if np.issubdtype(dtype, np.integer) else np.finfo(np.dtype(dtype))
    return limits.min, limits.max
