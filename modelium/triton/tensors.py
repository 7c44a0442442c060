"""Tensors on the wire: numpy arrays enter, KServe protobuf messages leave, and the way back.

Only ``raw_*_contents`` is used: one copy per tensor. BYTES tensors are object arrays of ``bytes`` (``str`` is encoded as
UTF-8 on the way in); each element is its length as little-endian uint32, then its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

Array = np.ndarray[Any, np.dtype[Any]]

_NUMPY_OF = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_DATATYPE_OF = {dtype: name for name, dtype in _NUMPY_OF.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: Array) -> str:
    """KServe's word for the array's type. Raises ``ValueError`` for a type that Triton does not have."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    try:
        return _DATATYPE_OF[array.dtype.newbyteorder("=")]
    except KeyError:
        raise ValueError(f"numpy type {array.dtype} has no counterpart in Triton") from None


def encode_bytes(array: Array) -> bytes:
    """The elements of a BYTES tensor, in row order, each with its length in front."""
    parts: list[bytes] = []
    for element in array.ravel():
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode_bytes(raw: bytes, shape: Sequence[int]) -> Array:
    """The way back; raises ``ValueError`` when the lengths do not add up to the bytes that are there."""
    if len(raw) >= 4 and _LENGTH.unpack_from(raw)[0] == len(raw) - 4:  # one element: a piece of a stream, thousands a second
        single = np.empty(1, dtype=np.object_)
        single[0] = raw[4:]
        return single if len(shape) == 1 and shape[0] == 1 else single.reshape(tuple(shape))
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        if position + 4 > end:
            raise ValueError("BYTES tensor ends inside a length")
        (size,) = _LENGTH.unpack_from(raw, position)
        position += 4
        if position + size > end:
            raise ValueError("BYTES tensor ends inside an element")
        elements.append(raw[position : position + size])
        position += size
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array.reshape(tuple(shape))


def infer_request(name: str, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> service_pb2.ModelInferRequest:
    """The whole inference request. No ``outputs`` means: all of them."""
    request = service_pb2.ModelInferRequest(model_name=name)
    for key, array in inputs.items():
        datatype = datatype_of(array)
        request.inputs.add(name=key, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(encode_bytes(array) if datatype == "BYTES" else _little_endian(array).tobytes())
    for key in outputs:
        request.outputs.add(name=key)
    return request


def read_outputs(response: service_pb2.ModelInferResponse) -> dict[str, Array]:
    """All outputs of a response. Arrays are views on the received bytes, hence read-only."""
    arrays: dict[str, Array] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            arrays[output.name] = decode_bytes(raw, output.shape)
        elif output.datatype in _NUMPY_OF:
            arrays[output.name] = np.frombuffer(raw, dtype=_NUMPY_OF[output.datatype]).reshape(tuple(output.shape))
        elif output.datatype == "BF16":  # numpy has no such type: the upper half of a float32
            halves = np.frombuffer(raw, dtype=np.uint16).astype(np.uint32) << 16
            arrays[output.name] = halves.view(np.float32).reshape(tuple(output.shape))
        else:
            raise ValueError(f"output {output.name!r} has a type that is not known: {output.datatype}")
    return arrays


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
