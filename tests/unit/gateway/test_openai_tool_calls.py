"""Reading tool calls and thoughts out of generated text: every family's form, cut into pieces in any way."""

from __future__ import annotations

import itertools
import json
import typing
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.config import ToolParser
from modelium.gateway.openai.reasoning import Thoughts
from modelium.gateway.openai.tool_calls import FAMILIES, Call, Part, Scanner, choose_family

PARIS = {"city": "Paris", "days": 3}
WEATHER = ("get_weather", PARIS)
TIME = ("get_time", {"zone": "Europe/Paris {x}"})
ONE = json.dumps({"name": WEATHER[0], "arguments": PARIS})
TWO = json.dumps({"name": TIME[0], "parameters": TIME[1]})

# family, text, what is said beside the calls, the calls
WRITTEN = [
    ("hermes", f"Sure.\n<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{TWO}\n</tool_call>", "Sure.", [WEATHER, TIME]),
    ("hermes", f"<tool_call>{ONE}", "", [WEATHER]),
    ("hermes", "a < b and <tool> is no call", "a < b and <tool> is no call", []),
    ("hermes", "<tool_call>not json</tool_call> after", "<tool_call>not json</tool_call> after", []),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "",
        [WEATHER],
    ),
    (
        "glm45",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
        "",
        [WEATHER],
    ),
    ("llama3_json", TWO, "", [TIME]),
    ("llama3_json", f"<|python_tag|>{ONE}; {TWO}", "", [WEATHER, TIME]),
    ("llama3_json", '{"answer": 42}', '{"answer": 42}', []),
    ("llama3_json", "The set {1, 2}", "The set {1, 2}", []),
    ("llama4_pythonic", "[get_weather(city='Paris', days=3), get_time(zone='Europe/Paris {x}')]", "", [WEATHER, TIME]),
    ("llama4_pythonic", '<|python_start|>[get_weather(city="Paris", days=3)]<|python_end|>', "", [WEATHER]),
    ("llama4_pythonic", "[1, 2] is a list", "[1, 2] is a list", []),
    ("mistral", f"[TOOL_CALLS][{ONE}, {TWO}]", "", [WEATHER, TIME]),
    ("mistral", f"Hm. [TOOL_CALLS]get_weather[ARGS]{json.dumps(PARIS)}[TOOL_CALLS]get_time{json.dumps(TIME[1])}", "Hm.",
     [WEATHER, TIME]),
    (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n" + json.dumps(PARIS)
        + "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>get_time<｜tool▁sep｜>" + json.dumps(TIME[1])
        + "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        [WEATHER, TIME],
    ),
    ("granite", f"<|tool_call|>[{ONE}]", "", [WEATHER]),
    ("phi4_mini", f"functools[{ONE}]", "", [WEATHER]),
    ("jamba", f"<tool_calls>[{ONE},\n{TWO}]</tool_calls>", "", [WEATHER, TIME]),
    ("internlm", f"I look. <|action_start|><|plugin|>\n{ONE}<|action_end|>", "I look.", [WEATHER]),
    (
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        + json.dumps(PARIS) + "<|tool_call_end|><|tool_calls_section_end|>",
        "",
        [WEATHER],
    ),
]  # fmt: skip


def scan(family: str, pieces: list[str], *, in_parts: bool = False) -> tuple[str, list[tuple[str, object]]]:
    scanner = Scanner(FAMILIES[family], in_parts=in_parts)
    found = [item for piece in pieces for item in scanner.feed(piece)] + scanner.finish()
    calls: list[tuple[str, str]] = []
    for item in found:
        if isinstance(item, Call) or (isinstance(item, Part) and item.name):
            calls.append((item.name, item.arguments))
        elif isinstance(item, Part):
            calls[-1] = (calls[-1][0], calls[-1][1] + item.arguments)
    return "".join(item for item in found if isinstance(item, str)), [(name, json.loads(said)) for name, said in calls]


def cut(text: str, at: list[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


@pytest.mark.parametrize(("family", "text", "said", "calls"), WRITTEN)
def test_each_family_is_read(family: str, text: str, said: str, calls: list[tuple[str, object]]) -> None:
    assert scan(family, [text]) == (said, calls)
    assert scan(family, list(text)) == (said, calls)
    assert scan(family, list(text), in_parts=True) == scan(family, [text], in_parts=True) == (said, calls)


def test_arguments_leave_letter_by_letter() -> None:
    """The name as soon as it is known, and a newline that a model writes into a string as JSON has it."""
    scanner = Scanner(FAMILIES["hermes"], in_parts=True)
    text = '<tool_call>\n{"name": "f", "arguments": {"a": "x\ny}", "b": [1]}}\n</tool_call>'
    parts = [item for letter in text for item in scanner.feed(letter) if isinstance(item, Part)]
    assert [part.name for part in parts] == ["f", *[""] * (len(parts) - 1)]
    assert len(parts) > 10
    assert json.loads("".join(part.arguments for part in parts)) == {"a": "x\ny}", "b": [1]}
    assert scanner.finish() == []


@given(
    st.sampled_from(WRITTEN),
    st.text(alphabet=" \n<|[{}]tool_calfunsARGS｜", max_size=30),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_how_the_text_is_cut_does_not_matter(
    written: tuple[str, str, str, list[tuple[str, object]]], before: str, at: list[int]
) -> None:
    family, text, _, _ = written
    whole = before + text
    assert scan(family, cut(whole, at)) == scan(family, [whole])


@given(st.sampled_from(sorted(FAMILIES)), st.text(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_text_without_calls_comes_out_as_it_is(family: str, text: str, at: list[int]) -> None:
    said, calls = scan(family, cut(text, at))
    if not calls:
        assert said.strip() == text.strip() or FAMILIES[family].dropped


@given(st.booleans(), st.text(alphabet="<think>/ \nab", max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_thoughts_do_not_depend_on_the_pieces_either(inside: bool, text: str, at: list[int]) -> None:
    def read(pieces: list[str]) -> tuple[str, str]:
        thoughts = Thoughts(inside=inside)
        parts = [thoughts.feed(piece) for piece in pieces] + [thoughts.finish()]
        return "".join(part[0] for part in parts), "".join(part[1] for part in parts)

    assert read(cut(text, at)) == read([text])


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("{{ tools }}<tool_call>", "hermes"),
        ("{{ tools }}<tool_call><function=", "qwen3_coder"),
        ("{{ tools }}<tool_call><arg_key>", "glm45"),
        ("{{ tools }}[AVAILABLE_TOOLS] [TOOL_CALLS]", "mistral"),
        ("{{ tools }}<|start_header_id|>", "llama3_json"),
        ("{{ tools }}<|start_header_id|><|python_start|>", "llama4_pythonic"),
        ("{{ tools }}<｜tool▁calls▁begin｜>", "deepseek"),
        ("{{ tools }}<|tool_call|>", "granite"),
        ("{{ tools }}", None),
        ("<tool_call>", None),
        (None, None),
    ],
)
def test_the_family_is_chosen_by_the_template(template: str | None, family: str | None) -> None:
    choice = choose_family(template)
    assert (choice.family.name if choice.family is not None else None) == family
    assert choice.reason


def test_the_configuration_knows_the_same_families() -> None:
    assert set(typing.get_args(ToolParser)) == set(FAMILIES)
    assert choose_family("{{ tools }}<tool_call>", named="mistral").family is FAMILIES["mistral"]


def test_arguments_stay_as_they_were_written() -> None:
    reader: Callable[[str], list[Call] | None] = FAMILIES["hermes"].read
    assert reader('{"name": "f", "arguments": {"s": "é\\n\\"q\\""}}') == [Call(name="f", arguments='{"s": "é\\n\\"q\\""}')]
    assert reader('{"name": "f", "arguments": "{\\"a\\": 1}"}') == [Call(name="f", arguments='{"a": 1}')]
    assert reader('{"name": "f"}') == [Call(name="f", arguments="{}")]
