"""Ollama's requests: what they hold, and the chat or the completion in OpenAI's words that each of them asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelium.gateway.openai.chat_fields import Object, Tool
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Arguments, Few, Many, Shape, Text
from modelium.gateway.openai.parsing import checked
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, Count, Request

Images = Many[Text]
Said = dict[str, object]

_SAMPLING = {
    "seed": "seed",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "temperature": "temperature",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop": "stop",
}
_ENDLESS = 2**20  # the engine ends a text at its context


class _Function(BaseModel):
    name: str
    arguments: Annotated[Object, Arguments] = Field(default_factory=dict)


class _Call(BaseModel):
    id: str = ""
    function: _Function


class Message(BaseModel):
    """Of a conversation; ``images`` are base64."""

    model_config = ConfigDict(extra="ignore")
    role: str
    content: Text | None = None
    thinking: Text | None = None
    images: Images | None = None
    tool_calls: Many[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def said(self) -> Said:
        """In OpenAI's words."""
        content: object = self.content or ""
        if self.images:
            content = [{"type": "text", "text": self.content or ""}, *_pictures(self.images)]
        said: Said = {"role": self.role, "content": content}
        if self.thinking:
            said["reasoning_content"] = self.thinking
        if self.tool_calls:
            said["tool_calls"] = [
                {"id": call.id, "function": {"name": call.function.name, "arguments": call.function.arguments}}
                for call in self.tool_calls
            ]
        if self.tool_name is not None:
            said["name"] = self.tool_name
        if self.tool_call_id is not None:
            said["tool_call_id"] = self.tool_call_id
        return said


class Asked(Request):
    """What all of Ollama's requests for an answer have."""

    options: Annotated[Object, Few] | None = None
    keep_alive: float | str | None = None

    @property
    def ends(self) -> bool:
        """Does it ask that the model goes after this request?"""
        return self.keep_alive in (0, "0", "0s", "0m", "0h")

    @property
    def unheard(self) -> list[str]:
        """What it says that changes nothing here: options of Ollama's own engine, and how long a model stays."""
        options = [f"options.{name[:100]}" for name in self.options or {} if name not in _SAMPLING and name != "num_predict"]
        return (["keep_alive"] if self.keep_alive is not None else []) + sorted(options)[:20]


class Writing(Asked):
    """What chats and texts have in common. A ``stream`` is the default."""

    stream: bool | None = None
    format: Annotated[Literal["", "json"] | Object, Shape] | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    logprobs: Literal[False] | None = None

    @property
    def streams(self) -> bool:
        """Ollama streams unless it is told not to."""
        return self.stream is not False

    def sampling(self) -> Said:
        """``options`` in OpenAI's words."""
        options = self.options or {}
        said: Said = {theirs: options[ours] for ours, theirs in _SAMPLING.items() if options.get(ours) is not None}
        limit = options.get("num_predict")
        if isinstance(limit, int) and limit < 0:  # no limit
            limit = None
        if limit is not None:
            said["max_tokens"] = limit
        if self.format == "json":
            said["response_format"] = {"type": "json_object"}
        elif isinstance(self.format, dict):
            said["response_format"] = {"type": "json_schema", "json_schema": {"schema": self.format}}
        return said

    def chat(self, messages: list[Said], tools: object = None) -> ChatRequest:
        """Raises ``BadRequest``."""
        said = self.sampling() | {"messages": messages}
        if tools:
            said["tools"] = tools
        if isinstance(self.think, str):
            said["reasoning_effort"] = self.think
        if self.think is not None:
            said["chat_template_kwargs"] = {"enable_thinking": bool(self.think)}
        return checked(ChatRequest, said, model=self.model)


class ChatAsked(Writing):
    """The body of ``/api/chat``. Without messages, it asks for a load."""

    messages: Many[Message] | None = None
    tools: Annotated[Many[Tool], Arguments] | None = None

    def asks(self) -> ChatRequest:
        """Raises ``BadRequest``."""
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        return self.chat([message.said() for message in self.messages or ()], tools)


class GenerateAsked(Writing):
    """The body of ``/api/generate``. Without a prompt, it asks for a load."""

    prompt: Text | None = None
    system: Text | None = None
    images: Images | None = None
    raw: bool | None = None
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None

    def asks(self) -> ChatRequest:
        """A chat of one message, as the model's template writes it. Raises ``BadRequest``."""
        messages: list[Said] = [{"role": "system", "content": self.system}] if self.system else []
        content: object = self.prompt or ""
        if self.images:
            content = [{"type": "text", "text": self.prompt or ""}, *_pictures(self.images)]
        return self.chat([*messages, {"role": "user", "content": content}])

    def continues(self, longest: int | None) -> CompletionRequest:
        """The prompt as it stands. Raises ``BadRequest``."""
        if self.images:
            raise BadRequest("images: a raw prompt has none; leave raw out, or ask /predict", param="images")
        prompt = f"{self.system}\n\n{self.prompt}" if self.system and not self.raw else self.prompt
        said = {"max_tokens": _ENDLESS if longest is not None else 1024} | self.sampling() | {"prompt": prompt}
        return checked(CompletionRequest, said, model=self.model)


class EmbedAsked(Asked):
    """The body of ``/api/embed``."""

    input: Text | Many[Text] | None = None
    truncate: bool | None = None
    dimensions: Count | None = None


class EmbeddingsAsked(Asked):
    """The body of ``/api/embeddings``, which is older."""

    prompt: Text | None = None


class ShowAsked(Request):
    """The body of ``/api/show``."""

    verbose: bool | None = None


def _pictures(images: list[str]) -> Iterator[Said]:
    """Their kind is found out by who reads them."""
    for image in images:
        yield {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
