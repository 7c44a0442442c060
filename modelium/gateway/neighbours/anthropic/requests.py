"""Anthropic's requests: what they hold, and the chat in OpenAI's words that each of them asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from modelium.gateway.openai.chat_fields import Object
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Arguments, Many, Text, Words
from modelium.gateway.openai.parsing import checked
from modelium.gateway.openai.requests import ChatRequest, Count, Natural, Request

Said = dict[str, object]
_BILLING = "x-anthropic-billing-header"
_CACHED = frozenset({"cache_control", "citations", "signature", "is_error", "caller"})


class Source(BaseModel):
    """Of an image: its base64, or where it lies."""

    type: str
    media_type: str = "image/png"
    data: Text | None = None


class Inner(BaseModel):
    """A block of what a tool gave."""

    harmless: ClassVar[frozenset[str]] = _CACHED
    type: str
    text: Text | None = None
    source: Source | None = None


class Block(BaseModel):
    """A piece of a message: text, an image, a thought, a call of a tool, or what the tool gave."""

    harmless: ClassVar[frozenset[str]] = _CACHED
    type: str
    text: Text | None = None
    source: Source | None = None
    thinking: Text | None = None
    id: str | None = None
    name: str | None = None
    input: Annotated[Object, Arguments] | None = None
    tool_use_id: str | None = None
    content: Text | Many[Inner] | None = None


class Message(BaseModel):
    """Of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Text | Many[Block]


class Tool(BaseModel):
    """What the model may call. ``type``: none, or ``custom``; the others run at Anthropic's."""

    harmless: ClassVar[frozenset[str]] = _CACHED | {"eager_input_streaming", "defer_loading", "input_examples"}
    name: Annotated[str, Field(min_length=1)]
    type: str | None = None
    description: str | None = None
    input_schema: Object | None = None
    strict: bool | None = None


class ToolChoice(BaseModel):
    """Whether tools are to be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(BaseModel):
    """Whether the model is to think first."""

    harmless: ClassVar[frozenset[str]] = frozenset({"budget_tokens", "display"})
    type: Literal["enabled", "disabled", "adaptive"]


class CountAsked(Request):
    """The body of ``/v1/messages/count_tokens``."""

    messages: Annotated[Many[Message], Field(min_length=1)]
    system: Text | Many[Inner] | None = None
    tools: Annotated[Many[Tool], Arguments] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None

    def said(self) -> Said:
        """Raises ``BadRequest``."""
        messages: list[Said] = []
        if self.system:
            system = self.system if isinstance(self.system, str) else _text_of(self.system, "system", between="")
            messages.append({"role": "system", "content": system})
        for index, message in enumerate(self.messages):
            messages += _messages_of(message, f"messages.{index}")
        said: Said = {"messages": messages}
        if messages[-1]["role"] == "assistant":  # what the answer is to begin with
            said |= {"continue_final_message": True, "add_generation_prompt": False}
        if self.tools:
            said["tools"] = [_tool_of(tool, index) for index, tool in enumerate(self.tools)]
        if self.tool_choice is not None and (self.tools or self.tool_choice.type in ("any", "tool")):
            said |= _choice_of(self.tool_choice)
        if self.thinking is not None:
            said["chat_template_kwargs"] = {"enable_thinking": self.thinking.type != "disabled"}
        return said

    def asks(self) -> ChatRequest:
        """Raises ``BadRequest``."""
        return checked(ChatRequest, self.said(), model=self.model)


class MessagesAsked(CountAsked):
    """The body of ``/v1/messages``."""

    max_tokens: Count
    stop_sequences: Words | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Natural | None = None

    def said(self) -> Said:
        """Raises ``BadRequest``."""
        said = CountAsked.said(self) | {"max_tokens": self.max_tokens}
        sampling = {"stop": self.stop_sequences, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return said | {name: value for name, value in sampling.items() if value is not None}


def _messages_of(message: Message, place: str) -> list[Said]:
    """What tools gave is a message of its own in OpenAI's words, and stands before the rest."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results: list[Said] = []
    parts: list[Said] = []
    calls: list[Said] = []
    thoughts: list[str] = []
    for index, block in enumerate(message.content):
        where = f"{place}.content.{index}"
        match block.type:
            case "text":
                parts.append({"type": "text", "text": block.text or ""})
            case "image":
                parts.append(_image_of(block.source, where))
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                pass  # only Anthropic can read it
            case "tool_use":
                function = {"name": block.name or "", "arguments": block.input or {}}
                calls.append({"id": block.id or "", "function": function})
            case "tool_result":
                given = block.content if isinstance(block.content, str) else _text_of(block.content or (), where)
                results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": given})
            case other:
                raise BadRequest(f"{where}: blocks of type {other[:100]!r} are not supported here", param=where)
    said: Said = {"role": message.role, "content": _plain(parts)}
    if thoughts:
        said["reasoning_content"] = "\n".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    return results if results and not parts else [*results, said]


def _plain(parts: list[Said]) -> object:
    """One text alone is a string, as most templates want it."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts or ""


def _text_of(blocks: Sequence[Inner], where: str, *, between: str = "\n") -> str:
    for block in blocks:
        if block.type != "text":
            raise BadRequest(f"{where}: only text is taken there, found a block of type {block.type[:100]!r}", param=where)
    # Claude Code puts a line first that is another one in each request: no prompt would be in the cache.
    return between.join(block.text or "" for block in blocks if not (block.text or "").startswith(_BILLING))


def _image_of(source: Source | None, where: str) -> Said:
    if source is None or source.type != "base64" or source.data is None:
        raise BadRequest(f"{where}.source: only images of type base64 are taken; Modelium fetches nothing", param=where)
    return {"type": "image_url", "image_url": {"url": f"data:{source.media_type[:100]};base64,{source.data}"}}


def _tool_of(tool: Tool, index: int) -> Said:
    if tool.type not in (None, "custom"):
        where = f"tools.{index}.type"
        raise BadRequest(f"{where}: {tool.type[:100]!r} runs at Anthropic's; send tools of your own", param=where)
    function: Said = {"name": tool.name, "parameters": tool.input_schema or {"type": "object"}}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice_of(choice: ToolChoice) -> Said:
    said: Said = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
    match choice.type:
        case "tool":
            if not choice.name:
                raise BadRequest("tool_choice.name: is missing", param="tool_choice", code="missing_required_parameter")
            return said | {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
        case "any":
            return said | {"tool_choice": "required"}
        case plain:
            return said | {"tool_choice": plain}
