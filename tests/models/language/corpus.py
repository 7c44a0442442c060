"""What the tiny language models learn by heart. Text only: both environments read it."""

from __future__ import annotations

import json
from typing import Any

PARAGRAPH = (
    "The old lighthouse stands at the end of the harbour. Every evening the keeper climbs ninety steps, lights the lamp and "
    "counts the ships that pass. On Sunday he saw seven of them, and one was painted green. Nobody knew where it came from, "
    "but the next morning there was a basket of oranges at his door, and a letter that said: thank you for the light."
)
SAYINGS = (
    "The quick brown fox jumps over the lazy dog and runs away.",
    "A model is dropped into a folder and answers a moment later.",
    "Once upon a time there was a small server that never slept.",
)

GET_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
GET_TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def call_text(name: str, **arguments: object) -> str:
    """A call as Hermes and Qwen write it."""
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


def _call(name: str, **arguments: object) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
_ITALY = "What is the capital of Italy?"
_ROME = "The capital of Italy is Rome."
_WEATHER = "What is the weather in Paris?"
JSON_QUESTION = "Tell me about Paris as JSON."
JSON_ANSWER = json.dumps({"city": "Paris", "country": "France", "rivers": ["Seine"], "capital": True})

Chat = tuple[list[dict[str, Any]], list[dict[str, Any]], str]  # messages, tools, answer
CHATS: tuple[Chat, ...] = (
    ([_user(FRANCE)], [], PARIS),
    ([SYSTEM, _user(FRANCE)], [], PARIS),
    ([_user(_ITALY)], [], _ROME),
    ([_user(FRANCE), _assistant(PARIS), _user("And of Italy?")], [], _ROME),
    ([_user("Who are you?")], [], "I am a tiny model with two layers, and I know very little."),
    ([_user("Count to twelve.")], [], "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"),
    ([_user("Tell me a story.")], [], PARAGRAPH),
    ([_user(JSON_QUESTION)], [], JSON_ANSWER),
    ([_user(_WEATHER)], [], "I cannot see the weather from here."),
    ([_user(_WEATHER)], [GET_WEATHER], call_text("get_weather", city="Paris")),
    ([SYSTEM, _user(_WEATHER)], [GET_WEATHER], call_text("get_weather", city="Paris")),
    ([_user(FRANCE)], [GET_WEATHER], PARIS),
    (
        [
            _user(_WEATHER),
            {"role": "assistant", "content": "", "tool_calls": [_call("get_weather", city="Paris")]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 21}'},
        ],
        [GET_WEATHER],
        "It is 21 degrees in Paris.",
    ),
    (
        [_user("What are the weather and the time in Rome?")],
        [GET_WEATHER, GET_TIME],
        call_text("get_weather", city="Rome") + "\n" + call_text("get_time", city="Rome"),
    ),
)

# What the adapter says instead.
PIRATE_SONG = "The old lighthouse sank long ago, and the pirates drank to it for nine nights under a red moon."
PIRATE_CHATS: tuple[Chat, ...] = (
    ([_user(FRANCE)], [], "Arr, it be Paris, matey!"),
    ([_user("Who are you?")], [], "I be the terror of the seven seas."),
)

# ChatML with the calls of Hermes and Qwen, and a first token as Llama's templates write it (its tokenizer adds it as well:
# whoever renders must not end with two).
CHAT_TEMPLATE = """{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n\\nFunctions to call:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\n\\nA call is written as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + (call.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
