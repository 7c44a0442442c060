"""Tools of a request: tools, the choice among them and the model's family enter; what the template is given, what the text must
look like and how it is read leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelium.gateway.openai.chat_fields import AllowedTools, NamedTool, Tool
from modelium.gateway.openai.choices import Automatic, Named, Plain, Reader, Required
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.requests import ChatRequest
from modelium.gateway.openai.tool_calls import Choice, Family
from modelium.values import JsonValue

Object = dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """``shape`` goes to the engine as structured outputs; ``special``: special tokens must stay in the text."""

    offered: tuple[Object, ...] = ()
    shape: Object | None = None
    family: Family | None = None
    name: str = ""  # of the one function that must be called
    required: bool = False
    automatic: bool = False
    parallel: bool = True

    @property
    def special(self) -> bool:
        """Are the markers of calls special tokens, which the engine must not swallow?"""
        return self.automatic and self.family is not None and self.family.special

    def reader(self, *, in_parts: bool = False) -> Reader:
        """A new one for each choice of the answer. ``in_parts``: calls are given out while they are written."""
        if self.name:
            return Named(self.name, self.family)
        if self.required:
            return Required(self.family)
        if self.automatic and self.family is not None:
            return Automatic(self.family, parallel=self.parallel, in_parts=in_parts)
        return Plain()


def tool_use_of(request: ChatRequest, choice: Choice) -> ToolUse:
    """Raises ``BadRequest`` where the model has no way to do what is asked.

    1. No tools, or ``none``: text. 2. A named function: the text is its arguments, held to its schema. 3. ``required``: a list
    of calls, held to the schemas. 4. ``auto``: the model's own way, for which its family must be known.
    """
    tools = request.tools or []
    wish = request.tool_choice or ("auto" if tools else "none")
    if isinstance(wish, AllowedTools):
        allowed = {tool.function.name for tool in wish.allowed_tools.tools}
        tools, wish = [tool for tool in tools if tool.function.name in allowed], wish.allowed_tools.mode
    if not tools and wish != "none":
        raise BadRequest("tool_choice: there are no tools to choose from; send tools", param="tool_choice")
    if wish == "none":
        return ToolUse()  # 1
    offered = tuple(_template_view(tool) for tool in tools)
    family, parallel = choice.family, request.parallel_tool_calls is not False
    if isinstance(wish, NamedTool):
        named = next((tool for tool in tools if tool.function.name == wish.function.name), None)
        if named is None:
            names = ", ".join(tool.function.name for tool in tools)
            raise BadRequest(f"tool_choice: no tool is called {wish.function.name!r}; there are {names}", param="tool_choice")
        return ToolUse(offered=offered, shape=_schema(named), family=family, name=named.function.name)  # 2
    if wish == "required":
        return ToolUse(offered=offered, shape=_any_of(tools, parallel=parallel), family=family, required=True)  # 3
    if family is None:
        raise BadRequest(
            f"tools: {request.model!r} cannot choose tools by itself: {choice.reason}. Name the function in tool_choice, say "
            'tool_choice "required", or set models: {NAME: {tool_parser: …}} in modelium.yaml',
            param="tools",
            code="tools_unsupported",
        )
    return ToolUse(offered=offered, family=family, automatic=True, parallel=parallel)  # 4


def _template_view(tool: Tool) -> Object:
    """As templates and transformers know them; what the client left out stays out."""
    function: Object = {"name": tool.function.name}
    if tool.function.description is not None:
        function["description"] = tool.function.description
    if tool.function.parameters is not None:
        function["parameters"] = tool.function.parameters
    return {"type": "function", "function": function}


def _schema(tool: Tool) -> Object:
    return tool.function.parameters or {"type": "object", "properties": {}}


def _any_of(tools: Sequence[Tool], *, parallel: bool) -> Object:
    """A list with at least one call. Definitions move to the top, where ``#/$defs/…`` finds them."""
    definitions: Object = {}
    kinds: list[JsonValue] = []
    for tool in tools:
        schema = dict(_schema(tool))
        own = schema.pop("$defs", None)
        for name, definition in (own if isinstance(own, dict) else {}).items():
            if definitions.setdefault(name, definition) != definition:
                raise BadRequest(f"tools: two tools define $defs/{name} differently; rename one", param="tools")
        kinds.append(
            {
                "type": "object",
                "properties": {"name": {"type": "string", "enum": [tool.function.name]}, "parameters": schema},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    made: Object = {"type": "array", "minItems": 1, "items": {"anyOf": kinds} if len(kinds) > 1 else kinds[0]}
    if not parallel:
        made["maxItems"] = 1
    if definitions:
        made["$defs"] = definitions
    return made
