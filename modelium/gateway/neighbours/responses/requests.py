"""Requests to ``/v1/responses``: what they hold, and the chat that each of them asks for.

Nothing is kept between requests: a conversation is sent whole each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelium.gateway.openai.chat_fields import Object
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Arguments, Many, Shape, Text
from modelium.gateway.openai.parsing import checked
from modelium.gateway.openai.requests import ChatRequest, Count, Request

Said = dict[str, object]
_ENCRYPTED = "reasoning.encrypted_content"


class Part(BaseModel):
    """A piece of an item's content."""

    harmless: ClassVar[frozenset[str]] = frozenset({"annotations", "logprobs", "detail"})
    type: str
    text: Text | None = None
    refusal: Text | None = None
    image_url: Text | None = None


class Item(BaseModel):
    """Of a conversation: a message, a call of a function, what it gave, or a thought."""

    harmless: ClassVar[frozenset[str]] = frozenset({"id", "status", "phase", "encrypted_content", "namespace", "caller"})
    type: str = "message"
    role: str | None = None
    content: Text | Many[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Text | None = None
    output: Text | Many[Part] | None = None
    summary: Many[Part] | None = None


class Tool(BaseModel):
    """A function that the model may call. What runs at OpenAI's is refused."""

    harmless: ClassVar[frozenset[str]] = frozenset({"defer_loading", "allowed_callers", "output_schema"})
    model_config = ConfigDict(extra="allow")
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class NamedTool(BaseModel):
    """The one that it has to call."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]


class Format(BaseModel):
    """The form of the answer's text."""

    harmless: ClassVar[frozenset[str]] = frozenset({"strict", "description"})
    model_config = ConfigDict(populate_by_name=True)
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Annotated[Object | None, Shape, Field(alias="schema")] = None


class TextOptions(BaseModel):
    """What the answer's text is to be like."""

    harmless: ClassVar[frozenset[str]] = frozenset({"verbosity"})
    format: Format | None = None


class Reasoning(BaseModel):
    """How much the model is to think."""

    harmless: ClassVar[frozenset[str]] = frozenset({"summary", "generate_summary"})
    effort: str | None = None


class ResponsesAsked(Request):
    """The body of ``/v1/responses``."""

    harmless: ClassVar[frozenset[str]] = Request.harmless | {"stream_options", "max_tool_calls"}
    input: Text | Annotated[Many[Item], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    tools: Annotated[Many[Tool], Arguments] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    previous_response_id: str | None = None
    conversation: str | Object | None = None
    background: bool | None = None
    prompt: Object | None = None
    include: Many[str] | None = None

    @property
    def unheard(self) -> list[str]:
        """What it wants to see that there is not. Thoughts are never encrypted here: clients ask for that by themselves."""
        return [f"include.{name[:100]}" for name in self.include or () if name != _ENCRYPTED][:20]

    def asks(self) -> ChatRequest:
        """Raises ``BadRequest``."""
        for name in ("previous_response_id", "conversation", "background", "prompt"):
            if getattr(self, name):
                raise BadRequest(
                    f"{name}: nothing is kept here between requests; send the whole conversation as input",
                    param=name,
                    code="unsupported_parameter",
                )
        messages: list[Said] = [{"role": "system", "content": self.instructions}] if self.instructions else []
        messages += [{"role": "user", "content": self.input}] if isinstance(self.input, str) else _messages_of(self.input)
        said: Said = {"messages": messages, "max_completion_tokens": self.max_output_tokens}
        said |= {"temperature": self.temperature, "top_p": self.top_p, "parallel_tool_calls": self.parallel_tool_calls}
        if self.tools or self.tool_choice not in (None, "auto", "none"):
            said["tools"] = [_tool_of(tool, index) for index, tool in enumerate(self.tools or ())]
            choice = self.tool_choice
            named = {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedTool) else choice
            said["tool_choice"] = named
        if self.text is not None and self.text.format is not None:
            said["response_format"] = _format_of(self.text.format)
        if self.reasoning is not None and self.reasoning.effort is not None:
            said["reasoning_effort"] = self.reasoning.effort
        return checked(ChatRequest, {name: value for name, value in said.items() if value is not None}, model=self.model)

    def echoed(self) -> Said:
        """What an answer repeats of its request."""
        plain = self.model_dump(include={"instructions", "max_output_tokens", "temperature", "top_p"})
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        choice = self.tool_choice.model_dump() if isinstance(self.tool_choice, NamedTool) else self.tool_choice or "auto"
        form = self.text.format.model_dump(by_alias=True, exclude_none=True) if self.text and self.text.format else None
        return plain | {
            "tools": tools,
            "tool_choice": choice,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "text": {"format": form or {"type": "text"}},
            "reasoning": {"effort": self.reasoning.effort if self.reasoning is not None else None, "summary": None},
        }


def _messages_of(items: Sequence[Item]) -> list[Said]:
    """Calls and thoughts join the assistant's message that they belong to."""
    messages: list[Said] = []
    thought = ""
    for index, item in enumerate(items):
        place = f"input.{index}"
        match item.type:
            case "message" if not item.role:
                raise BadRequest(f"{place}.role: is missing", param=f"{place}.role", code="missing_required_parameter")
            case "message":
                messages.append({"role": item.role, "content": _content_of(item.content)})
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant" or thought:
                    messages.append({"role": "assistant", "content": ""})
                function = {"name": item.name or "", "arguments": item.arguments or ""}
                calls = messages[-1].setdefault("tool_calls", [])
                assert isinstance(calls, list)
                calls.append({"id": item.call_id or "", "function": function})
            case "function_call_output":
                output = item.output if isinstance(item.output, str) else _text_of(item.output or ())
                messages.append({"role": "tool", "tool_call_id": item.call_id or "", "content": output})
            case "reasoning":
                thought += _text_of((item.content if isinstance(item.content, list) else None) or item.summary or ())
                continue
            case other:
                raise BadRequest(f"{place}: items of type {other[:100]!r} are not supported here", param=place)
        if thought and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = thought
        thought = ""
    return messages


def _content_of(content: str | list[Part] | None) -> object:
    if content is None or isinstance(content, str):
        return content or ""
    return [part.model_dump(exclude_none=True) for part in content]


def _text_of(parts: Sequence[Part]) -> str:
    return "\n".join(part.text or "" for part in parts)


def _tool_of(tool: Tool, index: int) -> Said:
    if tool.type != "function" or not tool.name:
        where = f"tools.{index}"
        raise BadRequest(f"{where}: only functions with a name are called here, found {tool.type[:100]!r}", param=where)
    function: Said = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _format_of(form: Format) -> Said:
    if form.type != "json_schema":
        return {"type": form.type}
    return {"type": "json_schema", "json_schema": {"name": form.name or "answer", "schema": form.schema_ or {}}}
