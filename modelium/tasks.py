"""The tensor contract: for each task, the Triton inputs and outputs. One table for config.pbtxt and for the gateway.

What enters: a ``ModelProfile``. What leaves: its ``Signature``. ``repository_templates/python`` and ``…/ray`` run in another
environment and cannot import this file; a test holds that they agree.

Dims exclude the batch dimension (every task below batches: row i of the outputs answers row i of the inputs). Where the
number of results varies from row to row, rows are padded to the longest and ``COUNT`` says how many are real.
``PARAMETERS`` is a JSON object per row with Hugging Face's parameter names (``top_k``, ``aggregation_strategy`` …).
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.values import ModelProfile, Runtime, Task, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs of a served model, batch dimension excluded when ``batches``.

    ``decoupled``: any number of responses to one request, which Triton then takes over gRPC streams and /generate only.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batches: bool = True
    decoupled: bool = False


def _in(name: str, *dims: int, optional: bool = False) -> Tensor:
    return Tensor(name=name, datatype="BYTES", dims=dims or (1,), optional=optional)


def _out(name: str, datatype: str, *dims: int) -> Tensor:
    return Tensor(name=name, datatype=datatype, dims=dims or (-1,))


PARAMETERS = _in("PARAMETERS", 1, optional=True)
_COUNT = _out("COUNT", "INT32", 1)
_LABELS = (_out("LABEL", "BYTES"), _out("SCORE", "FP32"))
_GENERATED = (
    _out("GENERATED_TEXT", "BYTES"),  # num_return_sequences
    _out("FINISH_REASON", "BYTES"),  # "stop" or "length", one a sequence
    _out("INPUT_TOKENS", "INT32", 1),
    _out("OUTPUT_TOKENS", "INT32"),
)

# A row of a table: numbers in the model's own order, or a JSON object by column name (or list). One of the two.
_CELLS = (
    Tensor(name="FEATURES", datatype="FP64", dims=(-1,), optional=True),
    Tensor(name="ROW", datatype="BYTES", dims=(1,), optional=True),
)

_TABLE: dict[Task, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    Task.TEXT_CLASSIFICATION: ((_in("TEXT"), _in("TEXT_PAIR", 1, optional=True)), _LABELS),
    Task.TOKEN_CLASSIFICATION: (
        (_in("TEXT"),),
        (
            _out("ENTITY", "BYTES"),
            _out("SCORE", "FP32"),
            _out("WORD", "BYTES"),
            _out("INDEX", "INT32"),  # token index; -1 when entities are aggregated
            _out("START", "INT32"),  # character offsets; -1 where none can be told (tokenizers that are Python's)
            _out("END", "INT32"),
            _COUNT,
        ),
    ),
    Task.FILL_MASK: (
        (_in("TEXT"),),
        (
            _out("SCORE", "FP32"),
            _out("TOKEN", "INT64"),
            _out("TOKEN_STR", "BYTES"),
            _out("SEQUENCE", "BYTES"),
            _out("MASK", "INT32"),  # which mask of the text this result fills, from 0
            _COUNT,
        ),
    ),
    Task.QUESTION_ANSWERING: (
        (_in("QUESTION"), _in("CONTEXT")),
        (_out("ANSWER", "BYTES"), _out("SCORE", "FP32"), _out("START", "INT32"), _out("END", "INT32"), _COUNT),
    ),
    Task.ZERO_SHOT_CLASSIFICATION: ((_in("TEXT"), _in("CANDIDATE_LABELS", -1)), _LABELS),
    Task.TEXT_GENERATION: ((_in("TEXT"),), _GENERATED),
    Task.TRANSLATION: ((_in("TEXT"),), _GENERATED),
    Task.SUMMARIZATION: ((_in("TEXT"),), _GENERATED),
    Task.TEXT2TEXT_GENERATION: ((_in("TEXT"),), _GENERATED),
    Task.IMAGE_TEXT_TO_TEXT: ((_in("TEXT"), _in("IMAGE", -1, optional=True)), _GENERATED),  # any number of images
    Task.IMAGE_CLASSIFICATION: ((_in("IMAGE"),), _LABELS),
    Task.OBJECT_DETECTION: (
        (_in("IMAGE"),),
        (_out("LABEL", "BYTES"), _out("SCORE", "FP32"), _out("BOX", "INT32", -1, 4), _COUNT),  # xmin ymin xmax ymax
    ),
    Task.AUTOMATIC_SPEECH_RECOGNITION: (
        (_in("AUDIO"),),
        (
            _out("TEXT", "BYTES", 1),
            _out("CHUNK_TEXT", "BYTES"),  # with return_timestamps: the parts of the text, and their seconds
            _out("CHUNK_START", "FP64"),
            _out("CHUNK_END", "FP64"),  # -1 where the model gave none
            _out("CHUNKS", "INT32", 1),  # how many
        ),
    ),
    Task.AUDIO_CLASSIFICATION: ((_in("AUDIO"),), _LABELS),
    # CLASS and SCORE have one place a class; without probabilities the predicted class alone, and NaN.
    Task.TABULAR_CLASSIFICATION: (_CELLS, (_out("LABEL", "BYTES", 1), _out("CLASS", "BYTES"), _out("SCORE", "FP64"), _COUNT)),
    Task.TABULAR_REGRESSION: (_CELLS, (_out("VALUE", "FP64"),)),  # one a target
    # one a document, in their order
    Task.TEXT_RANKING: ((_in("QUERY"), _in("DOCUMENTS", -1)), (_out("SCORE", "FP32"), _COUNT)),
    Task.TEXT_TO_IMAGE: ((_in("PROMPT"),), (_out("IMAGE", "BYTES"),)),  # PNG, one an image
}

_EMBEDDING_INPUT = {
    Task.FEATURE_EXTRACTION: "TEXT",
    Task.SENTENCE_SIMILARITY: "TEXT",
    Task.IMAGE_FEATURE_EXTRACTION: "IMAGE",
}


# Triton's own vLLM backend, name by name: https://github.com/triton-inference-server/vllm_backend (src/model.py, 26.01).
VLLM = Signature(
    inputs=(
        _in("text_input"),
        _in("image", -1, optional=True),  # base64
        Tensor(name="stream", datatype="BOOL", dims=(1,), optional=True),
        _in("sampling_parameters", optional=True),  # JSON
        Tensor(name="exclude_input_in_output", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_finish_reason", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_cumulative_logprob", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_logprobs", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_num_input_tokens", datatype="BOOL", dims=(1,), optional=True),
        Tensor(name="return_num_output_tokens", datatype="BOOL", dims=(1,), optional=True),
        _in("embedding_request", optional=True),  # JSON
    ),
    outputs=(
        _out("text_output", "BYTES"),
        _out("finish_reason", "BYTES"),
        _out("cumulative_logprob", "FP32"),
        _out("logprobs", "BYTES"),  # JSON
        _out("num_input_tokens", "UINT32", 1),
        _out("num_output_tokens", "UINT32"),
    ),
    batches=False,
    decoupled=True,
)


# What goes to an application of the user's and comes from it: HTTP, in tensors, the head of the answer in each response.
# LOCATION is where a redirect leads, "" for none: from "/" a path of the application's own.
SERVE_APP = Signature(
    inputs=(
        _in("REQUEST"),  # the body
        _in("CONTENT_TYPE", optional=True),
        _in("METHOD", optional=True),  # POST
        _in("PATH", optional=True),  # below the application, with its query: "/"
    ),
    outputs=(
        _out("RESPONSE", "BYTES", 1),
        _out("STATUS", "INT32", 1),
        _out("CONTENT_TYPE", "BYTES", 1),
        _out("LOCATION", "BYTES", 1),
    ),
    batches=False,
    decoupled=True,
)


def signature(profile: ModelProfile, runtime: Runtime | None = None, *, engine: bool = False) -> Signature:
    """Tensors of ``profile`` as Triton serves it with ``runtime``. vLLM has its own, in Triton or (``engine``) behind Ray.

    >>> from pathlib import Path
    >>> p = ModelProfile(name="m", path=Path("m"), task=Task.FEATURE_EXTRACTION, library="transformers",
    ...                  architecture="BertModel", embedding_width=384)
    >>> signature(p).outputs
    (Tensor(name='EMBEDDING', datatype='FP32', dims=(384,), optional=False),)
    """
    if runtime is Runtime.VLLM or engine:
        return VLLM
    if profile.app is not None:
        return SERVE_APP
    if profile.onnx is not None:
        graph = profile.onnx
        first = 1 if graph.dynamic_batch else 0
        return Signature(
            inputs=_served(graph.inputs, first), outputs=_served(graph.outputs, first), batches=graph.dynamic_batch
        )
    if profile.task in _EMBEDDING_INPUT:
        return Signature(
            inputs=(_in(_EMBEDDING_INPUT[profile.task]), PARAMETERS),
            outputs=(_out("EMBEDDING", "FP32", profile.embedding_width or -1),),
        )
    inputs, outputs = _TABLE[profile.task]
    return Signature(inputs=(*inputs, PARAMETERS), outputs=outputs)


def _served(tensors: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
    """The graph's tensors from dimension ``first`` on; a scalar travels as [1], because Triton has no tensor without dims."""
    return tuple(Tensor(name=t.name, datatype=t.datatype, dims=t.dims[first:] or (1,), optional=t.optional) for t in tensors)
