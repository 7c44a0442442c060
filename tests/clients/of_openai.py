"""``openai`` for Python, and the neighbours' own packages: ``anthropic``, ``ollama``, Azure's paths, rerankers, curl."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.clients.asked import CHAT, EMBEDS, PATIENCE_S, RANKS, At, asks
from tests.clients.of_triton import run_curl

FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
_MOST = 40


def paris(text: str | None) -> str:
    """What the tests' model has learnt."""
    assert text == PARIS, text
    return text


def _openai(at: At) -> Any:
    import openai

    return openai.OpenAI(base_url=at.openai, api_key="none", timeout=PATIENCE_S)


@asks(CHAT, "openai chat")
def chat(at: At) -> str:
    with _openai(at) as client:
        answer = client.chat.completions.create(model=at.model, messages=FRANCE, temperature=0, max_tokens=_MOST)
        return paris(answer.choices[0].message.content)


@asks(CHAT, "openai chat, streamed")
def chat_streamed(at: At) -> str:
    with _openai(at) as client:
        chunks = client.chat.completions.create(model=at.model, messages=FRANCE, temperature=0, max_tokens=_MOST, stream=True)
        return paris("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


@asks(CHAT, "openai chat (async)")
async def chat_async(at: At) -> str:
    import openai

    async with openai.AsyncOpenAI(base_url=at.openai, api_key="none", timeout=PATIENCE_S) as client:
        answer = await client.chat.completions.create(model=at.model, messages=FRANCE, temperature=0, max_tokens=_MOST)
        return paris(answer.choices[0].message.content)


@asks(CHAT, "openai completions")
def completions(at: At) -> str:
    with _openai(at) as client:
        answer = client.completions.create(model=at.model, prompt="The old lighthouse", max_tokens=8, temperature=0)
        return str(answer.choices[0].text)


@asks(CHAT, "openai responses")
def responses(at: At) -> str:
    with _openai(at) as client:
        return paris(client.responses.create(model=at.model, input=FRANCE[0]["content"], temperature=0).output_text)


@asks(CHAT, "openai responses, streamed")
def responses_streamed(at: At) -> str:
    with _openai(at) as client, client.responses.stream(model=at.model, input=FRANCE[0]["content"], temperature=0) as stream:
        return paris(stream.get_final_response().output_text)


@asks(EMBEDS, "openai embeddings")
def embeddings(at: At) -> str:
    with _openai(at) as client:
        return f"{len(client.embeddings.create(model=at.model, input='a cat').data[0].embedding)} numbers"


@asks(CHAT, "openai AzureOpenAI chat")
def azure(at: At) -> str:
    import openai

    made = openai.AzureOpenAI(azure_endpoint=at.http, api_key="none", api_version="2024-10-21", timeout=PATIENCE_S)
    with made as client:
        answer = client.chat.completions.create(model=at.model, messages=FRANCE, temperature=0, max_tokens=_MOST)
        return paris(answer.choices[0].message.content)


@asks(CHAT, "anthropic messages")
def anthropic_messages(at: At) -> str:
    import anthropic

    greedy: Any = {"max_tokens": _MOST, "extra_body": {"temperature": 0}}
    with anthropic.Anthropic(base_url=at.http, api_key="none", timeout=PATIENCE_S) as client:
        answer = client.messages.create(model=at.model, messages=FRANCE, **greedy)
        return paris("".join(getattr(block, "text", "") for block in answer.content))


@asks(CHAT, "anthropic messages, streamed (async)")
async def anthropic_streamed(at: At) -> str:
    import anthropic

    greedy: Any = {"max_tokens": _MOST, "extra_body": {"temperature": 0}}
    made = anthropic.AsyncAnthropic(base_url=at.http, api_key="none", timeout=PATIENCE_S)
    async with made as client, client.messages.stream(model=at.model, messages=FRANCE, **greedy) as stream:
        return paris(await stream.get_final_text())


@asks(CHAT, "ollama chat")
def ollama_chat(at: At) -> str:
    import ollama

    client = ollama.Client(at.http, timeout=PATIENCE_S)
    return paris(client.chat(model=at.model, messages=FRANCE, options={"temperature": 0}).message.content)


@asks(CHAT, "ollama chat, streamed (async)")
async def ollama_streamed(at: At) -> str:
    import ollama

    client = ollama.AsyncClient(at.http, timeout=PATIENCE_S)
    parts = await client.chat(model=at.model, messages=FRANCE, options={"temperature": 0}, stream=True)
    return paris("".join([part.message.content or "" async for part in parts]))


@asks(CHAT, "ollama generate")
def ollama_generate(at: At) -> str:
    import ollama

    client = ollama.Client(at.http, timeout=PATIENCE_S)
    return paris(client.generate(model=at.model, prompt=FRANCE[0]["content"], options={"temperature": 0}).response)


@asks(EMBEDS, "ollama embed")
def ollama_embed(at: At) -> str:
    import ollama

    return f"{len(ollama.Client(at.http, timeout=PATIENCE_S).embed(model=at.model, input='a cat').embeddings[0])} numbers"


@asks(RANKS, "rerank by HTTP (Jina's and Cohere's words)")
def rerank(at: At) -> str:
    body = {"model": at.model, "query": "film", "documents": ["The film was great", "It rained"], "top_n": 1}
    return f"first: {_post(f'{at.http}/v1/rerank', body)['results'][0]['index']}"


@asks(EMBEDS, "text-embeddings-inference /embed by HTTP")
def tei(at: At) -> str:
    return f"{len(_post(f'{at.predict}/embed', {'inputs': 'a cat'})[0])} numbers"


@asks(CHAT, "text-generation-inference /generate_stream by curl")
def tgi(at: At) -> str:
    body = json.dumps({"inputs": "The old lighthouse", "parameters": {"max_new_tokens": 8}})
    events = run_curl(f"{at.predict}/generate_stream", "-H", "Content-Type: application/json", "-d", body)
    last = json.loads([line for line in events.splitlines() if line.startswith("data:")][-1].removeprefix("data:"))
    if "error" in last:
        raise OSError(last["error"])
    return str(last["generated_text"])


@asks("vit", "curl --data-binary with a picture")
def picture(at: At) -> str:
    answer = json.loads(
        run_curl(at.predict, "-H", "Content-Type: image/png", "--data-binary", f"@{Path(at.files) / 'red.png'}")
    )
    assert answer[0]["label"] == "red", answer
    return "red"


def _post(url: str, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise OSError(f"{error.code}: {error.read().decode()}") from None
