"""What is answered to the neighbours' clients: the kinds of its JSON."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from modelium.gateway.openai.shapes import Usage

Json = dict[str, object]


class Version(TypedDict):
    """Of Modelium, or of the Ollama whose API this is."""

    version: str


# -- vLLM ----------------------------------------------------------------------------------------------------------


class Tokenized(TypedDict):
    """The tokens of a prompt or a chat."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(TypedDict):
    """The text of tokens."""

    prompt: str


class Score(TypedDict):
    """How well two texts go together."""

    index: int
    object: Literal["score"]
    score: float


class Scores(TypedDict):
    """One for each pair."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class RankedText(TypedDict):
    """The document itself."""

    text: str


class Ranked(TypedDict):
    """``index``: the document's place in the request."""

    index: int
    relevance_score: float
    document: NotRequired[RankedText]


class Ranking(TypedDict):
    """Best first."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]


class Class(TypedDict):
    """The likeliest label, and the probabilities of all in the order of their ids."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class Classes(TypedDict):
    """One for each text."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Class]
    usage: Usage


class Pooled(TypedDict):
    """A vector or probabilities; base64 of little-endian float32 if that is asked for."""

    index: int
    object: Literal["pooling"]
    data: list[float] | str


class Poolings(TypedDict):
    """One for each text."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Pooled]
    usage: Usage


# -- Ollama --------------------------------------------------------------------------------------------------------


class Details(TypedDict):
    """What a model is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Tag(TypedDict):
    """A model; where it is loaded, with what it occupies."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    modified_at: NotRequired[str]
    size_vram: NotRequired[int]
    expires_at: NotRequired[str]
    context_length: NotRequired[int]


class Tags(TypedDict):
    """All of them, or those that are loaded."""

    models: list[Tag]


class Shown(TypedDict):
    """One model."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: Json
    capabilities: list[str]
    modified_at: str


class Line(TypedDict):
    """What ``/api/chat`` (``message``) and ``/api/generate`` (``response``) say; the last one, or the only one, has the
    figures. Durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    message: NotRequired[Json]
    response: NotRequired[str]
    thinking: NotRequired[str]
    done_reason: NotRequired[str]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]


class Embedded(TypedDict):
    """Vectors of length 1."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int


class OneEmbedded(TypedDict):
    """The older form."""

    embedding: list[float]


# -- Anthropic -----------------------------------------------------------------------------------------------------


class AnthropicFault(TypedDict):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(TypedDict):
    """An error in Anthropic's shape."""

    type: Literal["error"]
    error: AnthropicFault


class MessageUsage(TypedDict):
    """Tokens of a request."""

    input_tokens: int
    output_tokens: int


class AnthropicMessage(TypedDict):
    """What the model said: blocks of text, thoughts and calls."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Json]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class Count(TypedDict):
    """How many tokens a prompt has."""

    input_tokens: int


# -- OpenAI's responses --------------------------------------------------------------------------------------------


class ResponseAnswer(TypedDict):
    """Items: messages, thoughts and calls; and what was asked."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: str
    output: list[Json]
    usage: Json | None
    error: Json | None
    incomplete_details: Json | None


# -- Hugging Face's servers ----------------------------------------------------------------------------------------


class Scored(TypedDict):
    """A text's place in the request and its score."""

    index: int
    score: float
    text: NotRequired[str]


class Labelled(TypedDict):
    """A label and its probability."""

    label: str
    score: float
