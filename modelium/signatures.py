"""The tensor contract: the Triton inputs and outputs of a model. One contract for config.pbtxt and for the gateway.

What enters: a ``ModelProfile``. What leaves: its ``Signature``. ``repository_templates/python`` and ``…/ray`` run in another
environment and cannot import this file; a test holds that they agree. Dims exclude the batch dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelium.values import ModelProfile, Tensor
from modelium.values.tensors import given, taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs of a served model, batch dimension excluded when ``batches``.

    ``decoupled``: any number of responses to one request, which Triton then takes over gRPC streams and /generate only.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batches: bool = True
    decoupled: bool = False


PARAMETERS = taken("PARAMETERS", optional=True)

# Triton's own vLLM backend, name by name: https://github.com/triton-inference-server/vllm_backend (src/model.py, 26.01).
VLLM = Signature(
    inputs=(
        taken("text_input"),
        taken("image", -1, optional=True),  # base64
        Tensor(name="stream", datatype="BOOL", dims=(1,), optional=True),
        taken("sampling_parameters", optional=True),  # JSON
        Tensor(name="exclude_input_in_output", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_finish_reason", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_cumulative_logprob", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_logprobs", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_num_input_tokens", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_num_output_tokens", datatype="BOOL", dims=(1,), optional=True),
        taken("embedding_request", optional=True),  # JSON
    ),
    outputs=(
        given("text_output", "BYTES"),
        given("finish_reason", "BYTES"),
        given("cumulative_logprob", "FP32"),
        given("logprobs", "BYTES"),  # JSON
        given("num_input_tokens", "UINT32", 1),
        given("num_output_tokens", "UINT32"),
    ),
    batches=False,
    decoupled=True,
)


# What goes to an application of the user's and comes from it: HTTP, in tensors, the head of the answer in each response.
# LOCATION is where a redirect leads, "" for none: from "/" a path of the application's own.
SERVE_APP = Signature(
    inputs=(
        taken("REQUEST"),  # the body
        taken("CONTENT_TYPE", optional=True),
        taken("METHOD", optional=True),  # POST
        taken("PATH", optional=True),  # below the application, with its query: "/"
    ),
    outputs=(
        given("RESPONSE", "BYTES", 1),
        given("STATUS", "INT32", 1),
        given("CONTENT_TYPE", "BYTES", 1),
        given("LOCATION", "BYTES", 1),
    ),
    batches=False,
    decoupled=True,
)


def signature(profile: ModelProfile, *, by_vllm: bool = False) -> Signature:
    """Tensors of ``profile`` as Triton serves it. vLLM has its own, in Triton or behind Ray.

    >>> from pathlib import Path
    >>> from modelium.values import Task
    >>> p = ModelProfile(name="m", path=Path("m"), task=Task.FEATURE_EXTRACTION, library="transformers",
    ...                  architecture="BertModel", embedding_width=384)
    >>> signature(p).outputs
    (Tensor(name='EMBEDDING', datatype='FP32', dims=(384,), optional=False),)
    """
    if by_vllm:
        return VLLM
    if profile.app is not None:
        return SERVE_APP
    if profile.onnx is not None:
        graph = profile.onnx
        first = 1 if graph.dynamic_batch else 0
        return Signature(
            inputs=_served(graph.inputs, first), outputs=_served(graph.outputs, first), batches=graph.dynamic_batch
        )
    row = profile.task.row
    width = profile.embedding_width or -1
    outputs = tuple(replace(tensor, dims=(width,)) for tensor in row.outputs) if row.embeds else row.outputs
    return Signature(inputs=(*row.inputs, PARAMETERS), outputs=outputs)


def _served(tensors: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
    """The graph's tensors from dimension ``first`` on; a scalar travels as [1], because Triton has no tensor without dims."""
    return tuple(Tensor(name=t.name, datatype=t.datatype, dims=t.dims[first:] or (1,), optional=t.optional) for t in tensors)
