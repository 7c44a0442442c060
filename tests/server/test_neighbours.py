"""Clients of other servers against a whole Modelium: their routes and packages, unmodified, and what real models answer.

One Modelium for the module; each model is loaded by the first request that asks it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
import pytest_asyncio

from tests.documented import examples_of, run_example
from tests.models import ensure_models, minilm, reference
from tests.models.language import LLAMA
from tests.models.language.corpus import CHATS, FRANCE, GET_WEATHER, PARAGRAPH, PARIS
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("ranker", "classifier", "whisper-stamps")


@pytest.fixture(scope="module")
def models() -> Path:
    return ensure_models(names=NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, models: Path, language_models: Path) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("neighbours")
    settings = {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}}
    async with system(directory, devices={"host_memory": "12GiB"}, orchestration=settings) as running:
        folders = {LLAMA: language_models / LLAMA, "minilm": minilm()} | {name: models / name for name in NAMES}
        for name, folder in folders.items():
            beside = directory / name
            shutil.copytree(folder, beside)
            beside.rename(running.incoming / name)
        for name in folders:
            await running.becomes(name, "UNLOADED")
        yield running


# -- vLLM ----------------------------------------------------------------------------------------------------------


async def test_tokens_are_those_that_the_model_reads(modelium: System) -> None:
    """A chat's prompt has as many as the engine says that it read."""
    messages = CHATS[1][0]
    status, tokens = await modelium.post("/tokenize", {"model": LLAMA, "messages": messages})
    assert status == 200
    _, text = await modelium.post("/detokenize", {"model": LLAMA, "tokens": tokens["tokens"]})
    _, again = await modelium.post("/tokenize", {"model": LLAMA, "prompt": text["prompt"], "add_special_tokens": False})
    assert again["tokens"] == tokens["tokens"]
    assert (await modelium.get(f"/models/{LLAMA}"))["state"] == "UNLOADED", "to tokenize loads nothing"
    _, chat = await modelium.post("/v1/chat/completions", {"model": LLAMA, "messages": messages, "max_tokens": 2})
    assert chat["usage"]["prompt_tokens"] == tokens["count"] == len(tokens["tokens"])


async def test_a_ranker_scores_as_sentence_transformers(modelium: System, models: Path) -> None:
    case: Any = reference(models, "ranker")["cases"][0]
    query, documents, scores = case["inputs"]["QUERY"], case["inputs"]["DOCUMENTS"], case["answer"]
    status, ranked = await modelium.post("/v1/rerank", {"model": "ranker", "query": query, "documents": documents})
    assert status == 200, ranked
    found = {one["index"]: one["relevance_score"] for one in ranked["results"]}
    assert [found[index] for index in range(len(documents))] == pytest.approx(scores, abs=1e-5)
    assert [one["relevance_score"] for one in ranked["results"]] == sorted(found.values(), reverse=True)
    assert ranked["usage"]["prompt_tokens"] > 0
    _, pairs = await modelium.post("/v1/score", {"model": "ranker", "text_1": query, "text_2": documents})
    assert [one["score"] for one in pairs["data"]] == pytest.approx(scores, abs=1e-5)


async def test_a_model_that_embeds_scores_by_cosine(modelium: System) -> None:
    texts = ["A cat sits on the mat.", "A kitten lies on a rug.", "Interest rates rose again."]
    _, answer = await modelium.post("/score", {"model": "minilm", "text_1": texts[0], "text_2": texts})
    same, near, far = (one["score"] for one in answer["data"])
    assert same == pytest.approx(1, abs=1e-5) and near > 0.5 > far
    _, pooled = await modelium.post("/pooling", {"model": "minilm", "input": texts[0]})
    _, embedded = await modelium.post("/v1/embeddings", {"model": "minilm", "input": texts[0]})
    assert pooled["data"][0]["data"] == pytest.approx(embedded["data"][0]["embedding"], abs=1e-6)


async def test_a_classifier_gives_its_labels_in_order(modelium: System, models: Path) -> None:
    case: Any = reference(models, "classifier")["cases"][0]
    status, answer = await modelium.post("/classify", {"model": "classifier", "input": case["inputs"]["TEXT"]})
    assert status == 200, answer
    [one] = answer["data"]
    _, predicted = await modelium.post("/predict/classifier", {"inputs": case["inputs"]["TEXT"]})
    assert one["label"] == predicted[0][0]["label"]
    assert sorted(one["probs"], reverse=True) == pytest.approx([each["score"] for each in predicted[0]], abs=1e-6)


# -- Ollama --------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def client(modelium: System) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(modelium.running.gateway_url) as running:
        yield running


async def test_ollamas_client_chats(modelium: System, client: ollama.AsyncClient) -> None:
    options = {"temperature": 0}
    for messages, tools, answer in (CHATS[0], CHATS[3]):
        assert (await client.chat(model=LLAMA, messages=messages, tools=tools, options=options)).message.content == answer
    parts = [part async for part in await client.chat(model=LLAMA, messages=CHATS[6][0], options=options, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == PARAGRAPH
    assert parts[-1].done_reason == "stop" and (parts[-1].eval_count or 0) >= len(parts) - 1
    messages, tools, _ = CHATS[9]
    body = {"model": LLAMA, "messages": messages, "tools": tools, "options": options, "stream": False}
    _, called = await modelium.post("/api/chat", body)  # the client writes a schema in another order than the model learnt
    [call] = called["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("get_weather", {"city": "Paris"})


async def test_ollamas_client_continues_texts(client: ollama.AsyncClient) -> None:
    beginning = "The old lighthouse"
    answer = await client.generate(model=LLAMA, prompt=beginning, raw=True, options={"temperature": 0})
    assert beginning + (answer.response or "") == PARAGRAPH
    assert (await client.generate(model=LLAMA, prompt=FRANCE, options={"temperature": 0})).response == PARIS


async def test_ollamas_client_embeds_and_lists(modelium: System, client: ollama.AsyncClient) -> None:
    embedded = await client.embed(model="minilm", input=["a cat", "a dog"])
    _, ours = await modelium.post("/v1/embeddings", {"model": "minilm", "input": ["a cat", "a dog"]})
    assert embedded.embeddings[1] == pytest.approx(ours["data"][1]["embedding"], abs=1e-6)
    assert embedded.prompt_eval_count == ours["usage"]["prompt_tokens"]
    assert {model.model for model in (await client.list()).models} >= {LLAMA, "minilm", *NAMES}
    assert LLAMA in {model.model for model in (await client.ps()).models}
    assert (await client.show(LLAMA)).capabilities == ["completion", "tools"]
    assert (await client.generate(model="minilm", keep_alive=0)).done_reason == "unload"
    await modelium.becomes("minilm", "UNLOADED")


# -- Anthropic and Azure -------------------------------------------------------------------------------------------


async def test_anthropics_client_chats(modelium: System) -> None:
    said: list[Any] = [messages for messages, _, _ in CHATS]
    greedy: Any = {"max_tokens": 400, "extra_body": {"temperature": 0}}
    async with anthropic.AsyncAnthropic(base_url=modelium.running.gateway_url, api_key="none") as client:
        whole = await client.messages.create(model=LLAMA, messages=said[0], **greedy)
        assert [getattr(block, "text", "") for block in whole.content] == [PARIS]
        counted = await client.messages.count_tokens(model=LLAMA, messages=said[0])
        assert counted.input_tokens == whole.usage.input_tokens
        async with client.messages.stream(model=LLAMA, messages=said[6], **greedy) as stream:
            assert await stream.get_final_text() == PARAGRAPH
        function = GET_WEATHER["function"]
        tool: Any = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
        called = await client.messages.create(model=LLAMA, messages=said[9], tools=[tool], **greedy)
        assert [getattr(block, "input", None) for block in called.content] == [{"city": "Paris"}]
        assert called.stop_reason == "tool_use"


async def test_azures_client_chats(modelium: System) -> None:
    url = modelium.running.gateway_url
    async with openai.AsyncAzureOpenAI(azure_endpoint=url, api_key="none", api_version="2024-10-21") as client:
        asked: Any = CHATS[0][0]
        answer = await client.chat.completions.create(model=LLAMA, messages=asked, temperature=0)
        assert answer.choices[0].message.content == PARIS


async def test_openais_client_asks_for_responses(modelium: System) -> None:
    async with openai.AsyncOpenAI(base_url=f"{modelium.running.gateway_url}/v1", api_key="none") as client:
        answer = await client.responses.create(model=LLAMA, input=FRANCE, temperature=0)
        assert (answer.output_text, answer.status) == (PARIS, "completed")
        async with client.responses.stream(model=LLAMA, input="Tell me a story.", temperature=0) as stream:
            assert (await stream.get_final_response()).output_text == PARAGRAPH
        function = {"type": "function", **GET_WEATHER["function"]}
        asked: Any = {"input": CHATS[9][0], "tools": [function], "temperature": 0}
        [call] = (await client.responses.create(model=LLAMA, **asked)).output
        assert call.type == "function_call" and call.arguments == '{"city": "Paris"}'


# -- Hugging Face's servers ----------------------------------------------------------------------------------------


async def test_the_routes_of_hugging_faces_servers(modelium: System, models: Path) -> None:
    beginning = "The old lighthouse"
    parameters = {"max_new_tokens": 400}
    _, said = await modelium.post(f"/predict/{LLAMA}/generate", {"inputs": beginning, "parameters": parameters})
    assert beginning + said["generated_text"] == PARAGRAPH
    _, vectors = await modelium.post("/predict/minilm/embed", {"inputs": "a cat"})
    _, ours = await modelium.post("/v1/embeddings", {"model": "minilm", "input": "a cat"})
    assert vectors[0] == pytest.approx(ours["data"][0]["embedding"], abs=1e-6)
    case: Any = reference(models, "ranker")["cases"][0]
    query, documents, scores = case["inputs"]["QUERY"], case["inputs"]["DOCUMENTS"], case["answer"]
    _, ranked = await modelium.post("/predict/ranker/rerank", {"query": query, "texts": documents})
    assert {one["index"]: one["score"] for one in ranked} == pytest.approx(dict(enumerate(scores)), abs=1e-5)
    text = reference(models, "classifier")["cases"][0]["inputs"]["TEXT"]
    _, labels = await modelium.post("/predict/classifier/predict", {"inputs": text})
    assert labels == (await modelium.post("/predict/classifier", {"inputs": text}))[1][0]


# -- OpenAI's routes for speech ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of openai's own translations
async def test_speech_is_transcribed_by_a_model_that_was_not_loaded(modelium: System, models: Path) -> None:
    """As transformers' pipeline does it: as text, with times, as subtitles, streamed; what cannot be done is said first."""
    cases: Any = reference(models, "whisper-stamps")["cases"]
    answers = {(case["inputs"]["AUDIO"]["file"], case["parameters"]["language"]): case["answer"] for case in cases}
    file = models / "files" / "talk.wav"
    base = f"{modelium.running.gateway_url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
        ask = client.audio.transcriptions.create
        with pytest.raises(openai.BadRequestError, match="no runtime here tells the times of words"):
            await ask(model="whisper-stamps", file=file, response_format="verbose_json", timestamp_granularities=["word"])
        assert (await modelium.get("/models/whisper-stamps"))["state"] == "UNLOADED"
        said: Any = answers["talk.wav", "en"]
        stream = await ask(model="whisper-stamps", file=file, language="en", stream=True)
        events = [one async for one in stream]
        assert [one.type for one in events] == ["transcript.text.delta", "transcript.text.done"]
        for language in ("en", "fr"):
            said = answers["talk.wav", language]
            heard = await ask(model="whisper-stamps", file=file, language=language, response_format="verbose_json")
            assert (heard.text, heard.language, heard.duration) == (said["text"].strip(), language, 0.4)
            assert heard.segments is not None
            parts = [{"timestamp": [one.start, one.end], "text": one.text} for one in heard.segments]
            assert parts == said["chunks"]
        vtt = await ask(model="whisper-stamps", file=file, language="fr", response_format="vtt")
        assert vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:00.400\nbonjour\n\n"
        found = await ask(model="whisper-stamps", file=file, response_format="verbose_json")
        assert found.language in ("en", "fr") and found.text
        assert (await ask(model="whisper-stamps", file=file, language="english", prompt="words")).text
        translated = await client.audio.translations.create(model="whisper-stamps", file=file)
        assert isinstance(translated.text, str)
        with pytest.raises(openai.BadRequestError, match="does not know 'klingon'; it knows en, fr"):
            await ask(model="whisper-stamps", file=file, language="klingon")
        with pytest.raises(openai.BadRequestError, match="cannot be read as wav"):
            await ask(model="whisper-stamps", file=("a.wav", b"no sound"))
    (example,) = examples_of("openai.md", "client.audio.")
    await run_example(example, base, **{"whisper-small": "whisper-stamps", "talk.wav": str(file)})
