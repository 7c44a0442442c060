"""Which markers a family of models puts around its tool calls, and which family a model is of: a choice with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelium.gateway.openai.tool_calls.formats import (
    Read,
    read_json,
    read_keyed,
    read_named,
    read_numbered,
    read_pythonic,
    read_separated,
    read_tagged,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """``starts`` begin a call anywhere, ``end`` ends it (None: the next start or the end of the text). ``openings`` begin one
    at the very beginning of the text and belong to it. ``dropped`` frame calls. ``special``: the markers are special tokens,
    so those stay in the text. ``hints`` in a chat template give the family away. ``short_ids``: nine letters and digits.
    """

    name: str
    read: Read
    starts: tuple[str, ...] = ()
    end: str | None = None
    openings: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    special: bool = False
    short_ids: bool = False


# In the order in which templates are looked through: the more particular first.
_ALL = (
    Family(
        name="deepseek", read=read_separated, starts=("<｜tool▁call▁begin｜>",), end="<｜tool▁call▁end｜>", special=True,
        dropped=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), hints=("<｜tool▁calls▁begin｜>",),
    ),
    Family(
        name="kimi_k2", read=read_numbered, starts=("<|tool_call_begin|>",), end="<|tool_call_end|>", special=True,
        dropped=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"), hints=("<|tool_calls_section_begin|>",),
    ),
    Family(
        name="mistral", read=read_named, starts=("[TOOL_CALLS]",), special=True, short_ids=True, hints=("[TOOL_CALLS]",),
    ),
    Family(
        name="internlm", read=read_json, starts=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
        end="<|action_end|>", special=True, hints=("<|action_start|>",),
    ),
    Family(name="qwen3_coder", read=read_tagged, starts=("<tool_call>",), end="</tool_call>", hints=("<function=",)),
    Family(name="glm45", read=read_keyed, starts=("<tool_call>",), end="</tool_call>", hints=("<arg_key>",)),
    Family(name="jamba", read=read_json, starts=("<tool_calls>",), end="</tool_calls>", hints=("<tool_calls>",)),
    Family(name="granite", read=read_json, starts=("<|tool_call|>", "<tool_call>"), hints=("<|tool_call|>",), special=True),
    Family(name="hermes", read=read_tagged, starts=("<tool_call>",), end="</tool_call>", hints=("<tool_call>",)),
    Family(name="phi4_mini", read=read_json, starts=("functools",), hints=("functools",)),
    Family(
        name="llama4_pythonic", read=read_pythonic, openings=("[",), special=True,
        dropped=("<|python_start|>", "<|python_end|>"), hints=("<|python_start|>", "[func_name1("),
    ),
    Family(
        name="llama3_json", read=read_json, starts=("<|python_tag|>",), openings=("{",), special=True,
        hints=("<|python_tag|>", '{"name": function name', "<|start_header_id|>"),
    ),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The family whose form of calls a model writes (None: none is known), and how that was told."""

    family: Family | None
    reason: str


def choose_family(template: str | None, *, named: str | None = None) -> Choice:
    """How this model's tool calls are to be read.

    1. ``tool_parser`` in modelium.yaml wins. 2. A template that never mentions ``tools`` cannot offer any. 3. The first family
    whose markers the template writes. 4. None: its calls cannot be told from text.
    """
    if named is not None:
        return Choice(family=FAMILIES[named], reason="tool_parser in modelium.yaml")  # 1
    if template is None or "tools" not in template:
        return Choice(family=None, reason="its chat template does not know tools")  # 2
    for family in _ALL:
        for hint in family.hints:
            if hint in template:
                return Choice(family=family, reason=f"{hint} in its chat template")  # 3
    return Choice(family=None, reason="its chat template uses none of the known forms of tool calls")  # 4
