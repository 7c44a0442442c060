"""The text of an entry's ``config.pbtxt``.

What enters: an ``Order`` and the template of the runtime. What leaves: Triton's own ``ModelConfig``, and its text. No file is
touched here. What differs from runtime to runtime is in the runtime's file (``WRITERS``).

The template is parsed and the result written with the protobuf that Triton itself uses, because Triton's answer to a broken
file is only "failed to poll from model repository": the cause stays in its log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from modelium.errors import EntryError
from modelium.repository import onnxruntime, python, ray, vllm
from modelium.repository.writing import Order, Writer
from modelium.signatures import Signature, signature
from modelium.values import DeviceKind, OnnxGraph, Placement, Runtime

# KServe's word for each type of Triton's (all but TYPE_INVALID, which is 0): TYPE_FP32 is FP32, TYPE_STRING is BYTES.
_TYPES = {
    "BYTES" if word == "TYPE_STRING" else word.removeprefix("TYPE_"): number for word, number in pb.DataType.items() if number
}
_NAME = re.compile(r"[A-Za-z0-9._-]+")


WRITERS: Mapping[Runtime, Writer] = {
    Runtime.PYTHON: python.WRITER,
    Runtime.ONNXRUNTIME: onnxruntime.WRITER,
    Runtime.VLLM: vllm.WRITER,
    Runtime.RAY: ray.WRITER,
}


def build_config(order: Order, template: str) -> pb.ModelConfig:
    """Fill ``template`` for one model.

    1. Tensors are those of ``modelium.signatures.signature``: explicit: Triton needs no throw-away load to ask for them.
    2. ``max_batch_size`` is 0 exactly when the tensors have no batch dimension of their own.
    3. ``instance_group`` is always written (Triton's default is every GPU, or two CPU instances for ONNX).
    4. ``dynamic_batching`` of the template stays when more than one request can share a batch.
    5. Parameters of the runtime, all strings; ``model_path`` is the only reference to the model's folder (vllm has its own, in
       ``1/model.json``).
    6. ``decoupled`` is written where one request may have several answers: nothing else tells Triton.

    Raises ``EntryError`` when Triton would refuse the result.
    """
    profile, placement = order.profile, order.placement
    writer = WRITERS[placement.runtime]
    check_name(profile.name)
    tensors = signature(profile, by_vllm=placement.by_vllm)
    check_tensors(profile.name, tensors)
    try:
        config = text_format.Parse(template, pb.ModelConfig())
    except text_format.ParseError as error:
        raise EntryError(f"the template of the {placement.runtime} runtime does not parse: {error}") from error
    config.name = profile.name

    del config.input[:]
    del config.output[:]
    for tensor in tensors.inputs:
        config.input.add(name=tensor.name, data_type=_TYPES[tensor.datatype], dims=tensor.dims, optional=tensor.optional)
    for tensor in tensors.outputs:
        config.output.add(name=tensor.name, data_type=_TYPES[tensor.datatype], dims=tensor.dims)
    if profile.onnx is not None and tensors.batches:
        _mark_scalars(config, profile.onnx)

    config.max_batch_size = max(1, placement.max_batch_size) if tensors.batches else 0
    if config.max_batch_size <= 1:
        config.ClearField("dynamic_batching")
    if tensors.decoupled:
        config.model_transaction_policy.decoupled = True

    del config.instance_group[:]
    config.instance_group.append(writer.instances(placement))

    try:
        for key, value in writer.parameters(order).items():
            config.parameters[key].string_value = value
    except (UnicodeError, ValueError) as error:
        raise EntryError(f"{profile.name}: Triton takes UTF-8 only: rename {order.model_path!a} ({error})") from error
    return config


def config_text(config: pb.ModelConfig, *, source: str, what: str, placement: Placement) -> str:
    """``config`` as text, under a comment that says whose file this is and why the model is placed so."""
    where = ", ".join(placement.devices) if placement.device_kind is DeviceKind.CUDA else "the host's processor"
    header = (
        "Written by Modelium, and written again when the model or its placement changes.",
        "To keep a version of your own, delete modelium.json beside this file: Modelium then leaves this directory alone.",
        "",
        f"Model:     {what}",
        f"From:      {source}",
        f"Placement: {placement.runtime} on {where}" + (f": {placement.reason}" if placement.reason else ""),
    )
    # A folder's name may hold a line break, which would end the comment and make the rest of the name configuration.
    comment = "".join(f"# {_one_line(line)}".rstrip() + "\n" for line in header)
    return f"{comment}\n{text_format.MessageToString(config, as_utf8=True)}"


def parse_config(text: str) -> pb.ModelConfig:
    """The message in the text of a ``config.pbtxt``; raises ``EntryError`` with the line of the fault."""
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise EntryError(f"config.pbtxt does not parse: {error}") from error


def check_name(name: str) -> None:
    """Refuse a name that is no directory name, or that Triton's HTTP paths and stub processes don't take."""
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise EntryError(f"{name!r} cannot name a model: letters, digits, '.', '_' and '-' only, and no '.' in front")


def check_tensors(name: str, tensors: Signature) -> None:
    """Refuse what Triton would: no outputs, two tensors of one name, a type it doesn't have, a dimension of size 0."""
    for kind, group in (("input", tensors.inputs), ("output", tensors.outputs)):
        if not group:
            raise EntryError(f"{name}: the model has no {kind}s, Triton needs at least one")
        seen: set[str] = set()
        for tensor in group:
            if not tensor.name or tensor.name in seen:
                raise EntryError(f"{name}: {kind} {tensor.name!r} appears twice or has no name")
            seen.add(tensor.name)
            if tensor.datatype not in _TYPES:
                raise EntryError(f"{name}: {kind} {tensor.name!r} is {tensor.datatype}, which Triton cannot carry")
            if any(size < 1 and size != -1 for size in tensor.dims):
                raise EntryError(f"{name}: {kind} {tensor.name!r} has dims {list(tensor.dims)}; Triton takes -1 or at least 1")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _mark_scalars(config: pb.ModelConfig, graph: OnnxGraph) -> None:
    """In a batch a scalar travels as [N, 1], and the empty reshape makes it [N] for the graph.

    Without a batch Triton refuses an empty reshape; the backends know by themselves that [1] is meant as a scalar.
    """
    for made, tensor in (*zip(config.input, graph.inputs, strict=True), *zip(config.output, graph.outputs, strict=True)):
        if len(tensor.dims) == 1:
            made.reshape.SetInParent()
