"""Names that nobody here knows, at every depth: left out and told, or refused where the configuration is strict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelium.gateway.openai.parsing import parse
from modelium.gateway.openai.requests import ChatRequest

from .openai_models import chat_model, sampling_of, saying, write_folder
from .stand_in import Served, served

HI = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"x": 1}}}}}


def ignored(**fields: Any) -> dict[str, str]:
    request = parse(ChatRequest, json.dumps({"model": "m", "messages": HI, **fields}).encode())
    return {one.path: one.meant for one in request.ignored}


def test_a_misspelt_name_is_told_with_the_nearest_at_every_depth() -> None:
    assert ignored(temprature=1) == {"temprature": "temperature"}
    assert ignored(stream=True, stream_options={"include_usge": True}) == {"stream_options.include_usge": "include_usage"}
    assert ignored(tools=[TOOL, {**TOOL, "function": {"name": "g", "descripton": "d"}}]) == {
        "tools.function.descripton": "description"
    }
    assert ignored(messages=[{**HI[0], "mood": "good"}, {**HI[0], "mood": "bad"}]) == {"messages.mood": ""}
    assert ignored(response_format={"type": "json_object", "schma": {}}) == {"response_format.schma": "schema"}


def test_what_is_in_a_schema_or_a_template_s_variables_is_no_parameter() -> None:
    schema = {"type": "object", "temprature": 1}
    assert ignored(tools=[TOOL], chat_template_kwargs={"temprature": 1}, documents=[{"x": 1}]) == {}
    assert ignored(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}) == {}


def test_false_may_turn_off_what_is_on_by_default_and_null_asks_for_nothing() -> None:
    assert ignored(flash=False, flush=None) == {"flash": ""}
    assert ignored(use_beam_search=False, functions=[], suffix="", best_of=1) == {}  # off by default


def test_what_clients_send_along_is_harmless() -> None:
    said: Any = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "provider_specific_fields": {},
    }
    parts = {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
    assert ignored(messages=[said, parts], user="u", metadata={"a": "b"}, store=True) == {}


async def test_a_strict_gateway_refuses_them(tmp_path: Path) -> None:
    async with served(strict=True) as gateway:
        gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
        for fields, message in (
            ({"temprature": 1}, "temprature: unknown parameter; did you mean 'temperature'?"),
            ({"keep_alive": "5m"}, "keep_alive: unknown parameter"),
            ({"tools": [{**TOOL, "function": {"name": "f", "stict": True}}]}, "tools.function.stict: unknown parameter"),
            ({"enable_thinking": False}, "enable_thinking: "),
        ):
            body = {"model": "m", "messages": HI, **fields}
            async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
                assert answer.status == 400, await answer.text()
                assert (await answer.json())["error"]["message"].startswith(message)
        assert gateway.triton.seen == []
        body = {"model": "m", "messages": HI, "user": "me"}
        async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200


async def header(gateway: Served, **fields: Any) -> str | None:
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json={"model": "m", "messages": HI, **fields}) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers.get("X-Modelium-Ignored")


async def test_the_header_says_what_was_meant(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    assert await header(gateway, temprature=1, keep_alive=1) == "temprature; did-you-mean=temperature, keep_alive"
    assert await header(gateway, add_special_tokens=True) == "add_special_tokens"  # of a chat, its template decides


async def test_a_switch_that_this_template_does_not_know_is_told(gateway: Served, tmp_path: Path) -> None:
    template = "{% if enable_thinking is false %}quick{% endif %}{{ messages[0].content }}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "n", template), "n"), saying("x"))
    assert await header(gateway, enable_thinking=False) == "enable_thinking"
    assert await header(gateway, model="n", enable_thinking=False) is None
    assert gateway.triton.seen[-1]["text_input"].item(0) == b"quickhello"


async def test_strict_arguments_that_only_the_model_s_own_will_holds_are_told(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    strict = [{"type": "function", "function": {"name": "f", "strict": True}}]
    assert await header(gateway, tools=strict) == "tools.function.strict"
    assert await header(gateway, tools=strict, tool_choice="required") is None


@pytest.mark.parametrize("word", ["schema", "value"])
async def test_a_schema_beside_json_object_is_the_schema(gateway: Served, tmp_path: Path, word: str) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("{}"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert await header(gateway, response_format={"type": "json_object", word: schema}) is None
    assert json.loads(sampling_of(gateway.triton.seen[0])["structured_outputs"]) == {"json": schema}
