"""An ONNX file's signature, sizes and completeness, from its protobuf alone; tensors are skipped over, never read.

What enters: a file (and the files beside it that hold external data). What leaves: ``OnnxFacts``, or ``NotYet`` /
``Rejected``. The field numbers are those of onnx.proto3; ``tests/unit/analyzers/test_onnx_graph.py`` holds them against
the onnx package.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from modelium.analyzers.folder import File, refuse_lfs_pointer, refuse_preallocated
from modelium.analyzers.formats.onnx_types import ITEM_BITS, KSERVE_WORDS, TORCH_WORDS
from modelium.analyzers.formats.protobuf_wire import (
    Field,
    FieldEnds,
    FileBytes,
    FileShrank,
    NotProtobuf,
    TooManyFields,
    read_varint,
    signed,
    walk,
)
from modelium.analyzers.verdict import NotYet, Rejected, describe_part, not_whole
from modelium.values import MissingPart, OnnxGraph, Tensor

_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_MAX_TENSORS = 4_096  # inputs, and outputs
_EXPORT_HINT = "export the model to ONNX again"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFacts:
    """The graph as Triton sees it, and its weights: elements by dtype (torch's words) and bytes."""

    graph: OnnxGraph
    producer: str
    elements: dict[str, int]
    weight_bytes: int

    def files(self, graph: str) -> tuple[str, ...]:
        """The graph's file, and those that hold its tensors, which lie in the same directory."""
        directory, slash, _ = graph.rpartition("/")
        return (graph, *(f"{directory}{slash}{side}" for side in self.graph.external_data))


@dataclass(slots=True)
class _Shape:
    tensor: Tensor
    symbol: str | None  # the first dimension's name, "" when unnamed, None when it is fixed or there is none


@dataclass(slots=True)
class _Reading:
    """What one pass over the file collects."""

    inputs: list[Field] = field(default_factory=list)
    outputs: list[Field] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    elements: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    external: dict[str, int] = field(default_factory=dict)  # side file → bytes it has to have at least
    producer: str = ""
    opset: int = 0
    has_graph: bool = False


def read_onnx(file: File, beside: Callable[[str], File | None], graph_file: str = "") -> OnnxFacts:
    """Read ``file``. ``beside`` finds a side file by its name relative to the ONNX file; ``graph_file`` goes into the graph."""
    if file.size == 0:
        raise not_whole(file.name, 0)
    with file.open() as stream:
        head = stream.read(1024)
        refuse_lfs_pointer(file, head)
        refuse_preallocated(file, head)
        try:
            return _read(FileBytes(stream.fileno(), file.size), file, beside, graph_file)
        except FileShrank:
            raise not_whole(file.name, 0, file.size, "being written anew") from None
        except TooManyFields:
            raise Rejected(f"{file.name} has more fields than any ONNX model", _EXPORT_HINT) from None


def _read(source: FileBytes, file: File, beside: Callable[[str], File | None], graph_file: str) -> OnnxFacts:
    reading = _Reading()
    end = source.size
    try:
        for part in walk(source, 0, end):
            _read_model_field(source, part, reading, file.name)
    except FieldEnds as short:
        raise not_whole(file.name, end, short.expected_end) from None
    except NotProtobuf:
        raise Rejected(f"{file.name} is not an ONNX file", _EXPORT_HINT) from None
    if not reading.has_graph or not reading.opset:  # both are required, and the opset is written behind the graph
        raise not_whole(file.name, end)
    for many, what in ((len(reading.inputs) - len(reading.initializers), "inputs"), (len(reading.outputs), "outputs")):
        if many > _MAX_TENSORS:
            raise Rejected(f"{file.name}: its graph has {many:,} {what}; at most {_MAX_TENSORS:,} are served", _EXPORT_HINT)
    _require_external_data(reading, beside)
    try:
        inputs = [_read_value(source, part, file.name) for part in reading.inputs]
        outputs = [_read_value(source, part, file.name) for part in reading.outputs]
    except (FieldEnds, NotProtobuf):
        raise Rejected(f"{file.name}: an input or output is damaged", _EXPORT_HINT) from None
    # Before IR version 4 weights were listed among the inputs too.
    inputs = [shape for shape in inputs if shape.tensor.name not in reading.initializers]
    if not inputs or not outputs:
        raise Rejected(f"{file.name}: its graph has no {'inputs' if not inputs else 'outputs'}", _EXPORT_HINT)
    return OnnxFacts(
        graph=OnnxGraph(
            inputs=tuple(shape.tensor for shape in inputs),
            outputs=tuple(shape.tensor for shape in outputs),
            dynamic_batch=_is_dynamic([*inputs, *outputs]),
            opset=reading.opset,
            external_data=tuple(sorted(reading.external)),
            file=graph_file,
        ),
        producer=reading.producer,
        elements=reading.elements,
        weight_bytes=reading.weight_bytes,
    )


def _is_dynamic(shapes: list[_Shape]) -> bool:
    """Whether rows may be joined into a batch: every first dimension is the same symbol, or all are unnamed.

    Different names are different lengths (boxes found, not images sent): joining those would mix up the answers.
    """
    first = shapes[0].symbol
    return first is not None and all(shape.symbol == first for shape in shapes)


def _read_model_field(source: FileBytes, part: Field, reading: _Reading, name: str) -> None:
    if part.number not in _MODEL_FIELDS:
        raise NotProtobuf
    if not part.delimited:
        return
    try:
        match part.number:
            case 2:
                reading.producer = _text(source, part)
            case 7:
                reading.has_graph = True
                _read_graph(source, part, reading, name)
            case 8:
                _read_opset(source, part, reading)
    except FieldEnds:  # inside a field that is all there: not cut short, damaged
        raise NotProtobuf from None


def _read_opset(source: FileBytes, part: Field, reading: _Reading) -> None:
    domain, version = "", 0
    for item in walk(source, part.start, part.end):
        if item.number == 1 and item.delimited:
            domain = _text(source, item)
        elif item.number == 2:
            version = item.value
    if domain in ("", "ai.onnx") or not reading.opset:
        reading.opset = max(reading.opset, version) if domain in ("", "ai.onnx") else version


def _read_graph(source: FileBytes, part: Field, reading: _Reading, name: str) -> None:
    for item in walk(source, part.start, part.end):
        if not item.delimited:
            continue
        match item.number:
            case 5:
                _read_initializer(source, item, reading, name)
            case 11:
                reading.inputs.append(item)
            case 12:
                reading.outputs.append(item)


def _read_initializer(source: FileBytes, part: Field, reading: _Reading, name: str) -> None:
    count, kind, stored, external = 1, 0, 0, {}
    for item in walk(source, part.start, part.end):
        match item.number:
            case 1 if item.delimited:  # dims, packed
                at = item.start
                while at < item.end:
                    dimension, at = read_varint(source, at, item.end)
                    count = min(count * dimension, 2**62)
            case 1:
                count = min(count * item.value, 2**62)
            case 2:
                kind = item.value
            case 8 if item.delimited:
                reading.initializers.add(_text(source, item))
            case 9 if item.delimited:
                stored = item.end - item.start
            case 13 if item.delimited:
                key, value = _read_pair(source, item)
                external[key] = value
    byte_count = (count * ITEM_BITS.get(kind, 0) + 7) // 8 or stored
    if location := external.get("location"):
        offset, length = _whole_number(external.get("offset")), _whole_number(external.get("length"))
        parts = location.replace("\\", "/").split("/")
        if location.startswith(("/", "\\")) or ".." in parts or "\0" in location:
            raise Rejected(f"{name} keeps tensors in {location[:120]!r}, outside its folder", _EXPORT_HINT)
        location = os.path.normpath(location)
        reading.external[location] = max(reading.external.get(location, 0), offset + (length or byte_count))
    word = TORCH_WORDS.get(kind, "unknown")
    reading.elements[word] = reading.elements.get(word, 0) + count
    reading.weight_bytes += byte_count


def _require_external_data(reading: _Reading, beside: Callable[[str], File | None]) -> None:
    missing = []
    for location, needed in sorted(reading.external.items()):
        found = beside(location)
        present = found.size if found is not None else 0
        if found is None or present < needed:
            missing.append(MissingPart(file=location, present_bytes=present, expected_bytes=needed))
    if missing:
        raise NotYet("; ".join(describe_part(part) for part in missing), *missing)


def _read_value(source: FileBytes, part: Field, name: str) -> _Shape:
    tensor_name, kind, dims, symbol = "", 0, None, None
    other = ""
    for item in walk(source, part.start, part.end):
        if item.number == 1 and item.delimited:
            tensor_name = _text(source, item)
        elif item.number == 2 and item.delimited:
            for choice in walk(source, item.start, item.end):
                if choice.number != 1:
                    other = {4: "a sequence", 5: "a map", 8: "a sparse tensor", 9: "an optional"}.get(choice.number, other)
                    continue
                for detail in walk(source, choice.start, choice.end):
                    if detail.number == 1:
                        kind = detail.value
                    elif detail.number == 2 and detail.delimited:
                        dims, symbol = _read_shape(source, detail)
    if other:
        hint = "export it with plain tensors as inputs and outputs (skl2onnx: options={'zipmap': False})"
        raise Rejected(f"{name}: {tensor_name!r} is {other}, which Triton cannot carry", hint)
    if kind not in KSERVE_WORDS:
        raise Rejected(
            f"{name}: {tensor_name!r} has element type {kind}, which Triton cannot carry", "export it as FP32 or FP16"
        )
    if dims is None:
        hint = "give it shapes with onnx.shape_inference.infer_shapes, or export it again"
        raise Rejected(f"{name}: the number of dimensions of {tensor_name!r} is not known", hint)
    return _Shape(Tensor(name=tensor_name, datatype=KSERVE_WORDS[kind], dims=dims), symbol)


def _read_shape(source: FileBytes, part: Field) -> tuple[tuple[int, ...], str | None]:
    dims: list[int] = []
    first: str | None = None
    for item in walk(source, part.start, part.end):
        if item.number != 1 or not item.delimited:
            continue
        size, symbol = -1, ""
        for detail in walk(source, item.start, item.end):
            if detail.number == 1 and not detail.delimited:
                size = signed(detail.value)
            elif detail.number == 2 and detail.delimited:
                symbol = _text(source, detail)
        if not dims:
            first = symbol if size < 1 else None
        dims.append(size if size > 0 else -1)
    return tuple(dims), first


def _read_pair(source: FileBytes, part: Field) -> tuple[str, str]:
    key = value = ""
    for item in walk(source, part.start, part.end):
        if item.number == 1 and item.delimited:
            key = _text(source, item)
        elif item.number == 2 and item.delimited:
            value = _text(source, item)
    return key, value


def _whole_number(word: str | None) -> int:
    return int(word) if word is not None and word.isascii() and word.isdigit() and len(word) < 20 else 0


def _text(source: FileBytes, part: Field) -> str:
    return source.piece(part.start, min(part.end, part.start + 4096)).decode("utf-8", "replace")
