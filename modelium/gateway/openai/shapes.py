"""What is answered in OpenAI's API: the kinds of its JSON. Fields that a request asks for are not required."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

Json = dict[str, object]


class Fault(TypedDict):
    """What went wrong; ``param``: the field that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(TypedDict):
    """An error in OpenAI's shape."""

    error: Fault


class Usage(TypedDict):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: NotRequired[int]
    prompt_tokens_details: NotRequired[Json | None]
    completion_tokens_details: NotRequired[Json | None]


class Model(TypedDict):
    """A model, or one with an adapter."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int | None
    context: str | None
    task: str
    capabilities: list[str]
    state: str
    runtime: str | None


class Models(TypedDict):
    """What can be asked: first what chats, then what embeds."""

    object: Literal["list"]
    data: list[Model]


class Unloaded(TypedDict):
    """A model whose memory is free again."""

    status: Literal["success"]
    model: str


class Embedding(TypedDict):
    """A vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    """The vectors of texts, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class CalledFunction(TypedDict):
    """``arguments`` are JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A function that the model wants called."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(TypedDict):
    """One of the answers."""

    index: int
    message: Message
    logprobs: Json | None
    finish_reason: str


class Chat(TypedDict):
    """A whole answer. Streamed, it comes in chunks whose ``choices`` have a ``delta`` each."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(TypedDict):
    """One of the continuations."""

    index: int
    text: str
    logprobs: Json | None
    finish_reason: str | None


class Completion(TypedDict):
    """A whole continuation; a chunk of a streamed one has the same fields."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage
