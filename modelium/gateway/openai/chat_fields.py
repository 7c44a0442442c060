"""What chats are made of in ``/v1``: messages with their parts, and tools; with their kinds and bounds. ``harmless`` of each:
names that clients send along and that change nothing about a local model's answer.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from modelium.errors import InvalidBody
from modelium.gateway.codecs.fields import decoded, plain_base64
from modelium.gateway.openai.fields import Arguments, Many, Text

Object = dict[str, JsonValue]
# What the libraries of other providers put beside anything: their caches' marks, their own notes.
NOTES = frozenset({"cache_control", "provider_specific_fields", "provider_options", "annotations", "index", "id"})


class Part(BaseModel):
    """A piece of a message: text or an image. The rest is known by name, so that it can be refused by name."""

    model_config = ConfigDict(extra="allow")
    harmless: ClassVar[frozenset[str]] = NOTES | {"detail"}
    type: str
    text: Text | None = None
    refusal: Text | None = None
    image_url: Object | str | None = None

    @field_validator("image_url")
    @classmethod
    def _plain(cls, sent: Object | str | None) -> Object | str | None:
        """The base64 of a data: URL as every decoder takes it; whether this URL may be sent at all is said elsewhere."""
        url = sent.get("url") if isinstance(sent, dict) else sent
        if not isinstance(url, str) or not url.startswith("data:") or "," not in url:
            return sent
        head, _, data = url.partition(",")
        plain = f"{head},{plain_base64(data)}"
        if data:
            try:
                decoded(plain, "image_url")
            except InvalidBody as error:
                raise ValueError(str(error)) from None
        return {**sent, "url": plain} if isinstance(sent, dict) else plain


class FunctionCall(BaseModel):
    """A call that was made earlier in the conversation."""

    harmless: ClassVar[frozenset[str]] = NOTES
    name: str
    arguments: Annotated[str | Object, Arguments] = ""


class ToolCall(BaseModel):
    """The same with its id."""

    harmless: ClassVar[frozenset[str]] = NOTES
    id: str = ""
    type: str = "function"
    function: FunctionCall


class Message(BaseModel):
    """Of a conversation. ``harmless``: what clients send back with an assistant's message."""

    harmless: ClassVar[frozenset[str]] = NOTES | {"token_ids", "status", "citations"}
    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text | Many[Part] | None = None
    name: str | None = None
    tool_calls: Many[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None


class Function(BaseModel):
    """A function that the model may call; ``parameters``: a JSON schema."""

    harmless: ClassVar[frozenset[str]] = NOTES
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """What the model may call."""

    harmless: ClassVar[frozenset[str]] = NOTES
    type: Literal["function"]
    function: Function


class _FunctionName(BaseModel):
    name: str


class NamedTool(BaseModel):
    """The one that it has to call."""

    type: Literal["function"] = "function"
    function: _FunctionName


class _AllowedTools(BaseModel):
    mode: Literal["auto", "required"]
    tools: Many[NamedTool]


class AllowedTools(BaseModel):
    """Some of the tools only; the others stay known to the client."""

    type: Literal["allowed_tools"]
    allowed_tools: _AllowedTools
