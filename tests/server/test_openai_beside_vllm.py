"""The same requests to Modelium and to vLLM's own server of the installed version, beside each other: the same shape, the same
values. One model of the tests' own, loaded once on each side.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.models.language import LLAMA
from tests.models.language.corpus import FRANCE, PARAGRAPH
from tests.server import beside
from tests.server.beside import LOAD_S, vllm_server
from tests.server.systems import HEAVY, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

LENGTH = 512
CAPITAL = [{"role": "user", "content": FRANCE}]
BEGINNING = PARAGRAPH[:40]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
}


@dataclass
class Both:
    """Two servers of one model. ``ids``: some tokens of its own."""

    http: aiohttp.ClientSession
    modelium: str
    vllm: str
    ids: list[int]

    async def ask(self, url: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """The status and the answer: JSON, or of a stream the list of its events."""
        at = url + (path if path.startswith("/") else f"/v1/{path}")
        async with self.http.post(at, json={"model": LLAMA, "temperature": 0, **body}) as answer:
            if answer.content_type != "text/event-stream":
                return answer.status, await answer.json()
            lines = (await answer.text()).splitlines()
        return answer.status, [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    async def agree(self, path: str, body: dict[str, Any]) -> Any:
        """Both answer the same to ``body``; gives Modelium's answer."""
        (here, ours), (there, theirs) = [await self.ask(url, path, body) for url in (self.modelium, self.vllm)]
        assert (here, there) == (200, 200), (ours, theirs)
        assert told(ours) == told(theirs)
        return ours


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory, language_models: Path) -> AsyncIterator[Both]:
    directory = tmp_path_factory.mktemp("beside")
    folder = language_models / LLAMA
    settings = {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}}
    chosen = {LLAMA: {"engine_args": {"max_model_len": LENGTH, "dtype": "float32"}}}
    async with (
        system(directory, devices={"host_memory": "12GiB"}, orchestration=settings, models=chosen) as running,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOAD_S)) as http,
    ):
        shutil.copytree(folder, directory / LLAMA)
        (directory / LLAMA).rename(running.incoming / LLAMA)
        await running.becomes(LLAMA, "UNLOADED")
        limits = ("--max-model-len", str(LENGTH), "--max-num-seqs", "8", "--generation-config", "vllm")
        async with vllm_server(http, folder, LLAMA, *limits) as server:
            await server.up()
            found = Both(http=http, modelium=running.running.gateway_url, vllm=server.url, ids=[])
            _, answer = await found.ask(found.vllm, "completions", {"prompt": BEGINNING, "return_token_ids": True})
            found.ids = answer["choices"][0]["prompt_token_ids"]
            yield found


# Or nobody's: what differs by nature.
OURS = frozenset({"id", "created", "system_fingerprint", "reasoning_content", "prompt_tokens_details"})


def told(answer: Any) -> Any:
    """What an answer says."""
    return beside.told(answer, OURS)


LIKELIHOOD = {"echo": True, "logprobs": 1, "max_tokens": 0}


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": BEGINNING, "logprobs": 2, "max_tokens": 5},
        {"prompt": BEGINNING, "logprobs": 0, "max_tokens": 5},
        {"prompt": BEGINNING, "logprobs": 1, "max_tokens": 5, "echo": True},
        {"prompt": BEGINNING, **LIKELIHOOD},
        {"prompt": [BEGINNING, "A cat"], **LIKELIHOOD},
        {"prompt": BEGINNING, "echo": True, "max_tokens": 5},
        {"prompt": BEGINNING, "prompt_logprobs": 1, "max_tokens": 3},
        {"prompt": BEGINNING, "return_token_ids": True, "max_tokens": 5},
        {"prompt": BEGINNING, "return_token_ids": True, "echo": True, "max_tokens": 5},
        {"prompt": BEGINNING, "return_tokens_as_token_ids": True, "logprobs": 1, "max_tokens": 5},
        {"prompt": BEGINNING, "truncate_prompt_tokens": 5, "return_token_ids": True, "max_tokens": 5},
        {"prompt": BEGINNING, "truncate_prompt_tokens": 5, "truncation_side": "right", "echo": True, "max_tokens": 5},
        {"prompt": BEGINNING, "truncate_prompt_tokens": 5, "truncation_side": "left", "return_token_ids": True},
        {"prompt": BEGINNING, "add_special_tokens": False, "return_token_ids": True, "max_tokens": 5},
        {"prompt": ["A cat", BEGINNING], "max_tokens": 3},
        {"prompt": BEGINNING, "stop": ["a", "e"], "max_tokens": 20},
        {"prompt": BEGINNING, "logprobs": 1, "logprob_token_ids": [5, 3, 9], "max_tokens": 3},
        {"prompt": BEGINNING, "use_beam_search": True, "n": 3, "max_tokens": 8, "return_token_ids": True},
        {"prompt": ["A cat", BEGINNING], "use_beam_search": True, "n": 2, "length_penalty": 0.0, "max_tokens": 20},
        {"prompt": BEGINNING, "use_beam_search": True, "n": 4, "ignore_eos": True, "echo": True, "max_tokens": 6},
    ],
    ids=str,
)
async def test_completions(both: Both, body: dict[str, Any]) -> None:
    await both.agree("completions", body)


@pytest.mark.parametrize("more", [{"echo": True}, LIKELIHOOD, {"return_token_ids": True}, {"prompt_logprobs": 0}], ids=str)
async def test_a_prompt_in_token_ids_is_read_as_it_is(both: Both, more: dict[str, Any]) -> None:
    """Halves of words too, which no text would give again."""
    await both.agree("completions", {"prompt": both.ids, "max_tokens": 4, **more})
    await both.agree("completions", {"prompt": [both.ids[3:9], both.ids[7:2:-1]], "max_tokens": 4, **more})


@pytest.mark.parametrize(
    "body",
    [
        {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True, "return_tokens_as_token_ids": True, "top_logprobs": 1},
        {"return_token_ids": True},
        {"prompt_logprobs": 1, "max_tokens": 4},
        {"response_format": {"type": "text"}},
        {"stop": ["a"]},
        {"logprobs": True, "logprob_token_ids": [7, 4], "max_tokens": 3},
        {"use_beam_search": True, "n": 2, "max_tokens": 12},
    ],
    ids=str,
)
async def test_chats(both: Both, body: dict[str, Any]) -> None:
    await both.agree("chat/completions", {"messages": CAPITAL, "max_tokens": 30, **body})


async def test_an_echo_in_a_chat(both: Both) -> None:
    """vLLM adds log-probabilities of the prompt, for which nobody asked."""
    body = {"messages": [*CAPITAL, {"role": "assistant", "content": "The"}], "echo": True, "max_tokens": 4}
    (_, ours), (_, theirs) = [await both.ask(url, "chat/completions", body) for url in (both.modelium, both.vllm)]
    assert told(ours["choices"]) == told(theirs["choices"])


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
async def test_streams_say_what_each_choice_took_so_far(both: Both, path: str) -> None:
    asked = {"prompt": BEGINNING} if path == "completions" else {"messages": CAPITAL}
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {**asked, "max_tokens": 4, "stream": True, "stream_options": options, "return_token_ids": True}
    (_, ours), (_, theirs) = [await both.ask(url, path, body) for url in (both.modelium, both.vllm)]
    for events in (ours, theirs):
        assert [event["usage"]["completion_tokens"] for event in events][-1] == 4
        assert all(event["usage"]["prompt_tokens"] for event in events)
    for read in (prompt_ids, token_ids, text_of):
        assert read(ours) == read(theirs)


def prompt_ids(events: list[Any]) -> Any:
    first = events[0]
    return first.get("prompt_token_ids") or first["choices"][0].get("prompt_token_ids")


def token_ids(events: list[Any]) -> list[int]:
    return [one for event in events for choice in event["choices"] for one in choice.get("token_ids") or ()]


def text_of(events: list[Any]) -> str:
    choices = [choice for event in events for choice in event["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": []}),
        ("completions", {"prompt": ""}),
        ("completions", {"prompt": "x", "max_tokens": 0}),
        ("completions", {"prompt": "x", "prompt_logprobs": -2}),
        ("completions", {"prompt": "x", "prompt_logprobs": 1, "stream": True}),
        ("completions", {"prompt": "x", "stream_options": {"include_usage": True}}),
        ("completions", {"prompt": "x", "truncate_prompt_tokens": LENGTH + 1}),
        ("completions", {"prompt": "x", "seed": 2**63}),
        ("completions", {"prompt": "x", "logit_bias": {"999999": 1}}),
        ("completions", {"prompt": "x", "logit_bias": {"a": 1}}),
        ("completions", {"prompt": [10**6]}),
        ("chat/completions", {"messages": CAPITAL, "stream_options": {"include_usage": True}}),
        ("chat/completions", {"messages": CAPITAL, "top_logprobs": 1}),
        ("completions", {"prompt": "x", "use_beam_search": True, "stream": True}),
        ("completions", {"prompt": "x", "use_beam_search": True, "n": 11, "max_tokens": 2}),
        ("completions", {"prompt": "x", "use_beam_search": True, "echo": True, "logprobs": 1}),
        ("completions", {"prompt": "x", "logprob_token_ids": [3]}),
        ("completions", {"prompt": "x", "logprobs": 1, "logprob_token_ids": [10**6]}),
        ("completions", {"prompt": "x", "logprobs": 1, "logprob_token_ids": list(range(129))}),
        ("chat/completions", {"messages": CAPITAL, "logprob_token_ids": [3]}),
        ("/tokenize", {"messages": CAPITAL, "add_generation_prompt": True, "continue_final_message": True}),
        ("/detokenize", {"tokens": ["a"]}),
        ("responses", {"input": "x", "max_output_tokens": 0}),
        ("messages", {"messages": CAPITAL, "max_tokens": 3, "tool_choice": {"type": "tool"}}),
    ],
    ids=str,
)
async def test_both_refuse(both: Both, path: str, body: dict[str, Any]) -> None:
    (here, ours), (there, theirs) = [await both.ask(url, path, body) for url in (both.modelium, both.vllm)]
    assert (here, there) == (400, 400), (ours, theirs)


async def test_without_a_seed_each_of_n_is_another_sample(both: Both) -> None:
    body = {"prompt": "A", "n": 6, "temperature": 2.0, "max_tokens": 12}
    for url in (both.modelium, both.vllm):
        _, answer = await both.ask(url, "completions", body)
        assert len({choice["text"] for choice in answer["choices"]}) > 1


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": BEGINNING, "return_token_strs": True},
        {"prompt": BEGINNING, "add_special_tokens": False},
        {"messages": CAPITAL},
        {"messages": CAPITAL, "add_generation_prompt": False, "return_token_strs": True},
        {"messages": [*CAPITAL, {"role": "assistant", "content": "The"}], "continue_final_message": True,
         "add_generation_prompt": False},
        {"messages": CAPITAL, "add_special_tokens": True},
    ],
    ids=str,
)  # fmt: skip
async def test_tokens_of_texts(both: Both, body: dict[str, Any]) -> None:
    await both.agree("/tokenize", body)


async def test_texts_of_tokens(both: Both) -> None:
    await both.agree("/detokenize", {"tokens": both.ids})
    await both.agree("/detokenize", {"tokens": both.ids[::-1]})


def response_of(answer: Any) -> Any:
    """What both say of an answer of /v1/responses: its items without their names, and what was written. The prompt has a token
    more in vLLM's: a second <s> before that of the template."""
    items = [{name: value for name, value in item.items() if name not in ("id", "status")} for item in answer["output"]]
    written = answer["usage"]["output_tokens"]
    return told({"items": items, "written": written, **{name: answer[name] for name in ("object", "status", "model")}})


@pytest.mark.parametrize(
    "body",
    [
        {"input": FRANCE},
        {"input": [{"role": "user", "content": FRANCE}], "instructions": "Be brief."},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": FRANCE}]}], "max_output_tokens": 4},
    ],
    ids=str,
)
async def test_responses(both: Both, body: dict[str, Any]) -> None:
    (here, ours), (there, theirs) = [
        await both.ask(url, "responses", {"max_output_tokens": 30, **body}) for url in (both.modelium, both.vllm)
    ]
    assert (here, there) == (200, 200), (ours, theirs)
    assert response_of(ours) == response_of(theirs)


async def test_responses_in_events(both: Both) -> None:
    body = {"input": FRANCE, "max_output_tokens": 30, "stream": True}
    (_, ours), (_, theirs) = [await both.ask(url, "responses", body) for url in (both.modelium, both.vllm)]
    for events in (ours, theirs):
        assert events[0]["type"] == "response.created"
    deltas = [
        "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        for events in (ours, theirs)
    ]
    assert deltas[0] == deltas[1] != ""
    assert response_of(ours[-1]["response"]) == response_of(theirs[-1]["response"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}], "max_tokens": 4},
        {"stop_sequences": ["a"]},
    ],
    ids=str,
)
async def test_messages(both: Both, body: dict[str, Any]) -> None:
    await both.agree("messages", {"messages": CAPITAL, "max_tokens": 30, **body})


async def test_messages_are_counted(both: Both) -> None:
    (_, ours), (_, theirs) = [
        await both.ask(url, "messages/count_tokens", {"messages": CAPITAL}) for url in (both.modelium, both.vllm)
    ]
    assert ours["input_tokens"] == theirs["input_tokens"] > 0
