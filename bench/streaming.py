"""What the gateway adds to a stream of tokens (figures for: time to first token ≤ 3 ms more, tokens/s ≥ 0.95 times).

The same generation is asked for in four ways, in turns: straight from Triton's ``/generate_stream`` and through
``/v1/completions``; and, because ``/predict`` shows each token with its log-probability, straight from Triton with
log-probabilities and through ``/predict``. With ``--litellm`` also through LiteLLM's proxy in front of the gateway. Times are
the client's: from the request to its first token, and to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from others import litellm
from served import ROOT, Served, serve

_NAME = "tiny-llama"
_PROMPT = "The old lighthouse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to ask. ``base`` is the way that it is compared with."""

    name: str
    url: str
    body: Mapping[str, object]
    base: str = ""
    first_ms: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--litellm", action="store_true", help="LiteLLM's proxy in front of the gateway as well")
    arguments = parser.parse_args()
    with serve({"orchestration": {"policies": {"evict_after_idle_seconds": 3600}}}, prepare=_put_model) as served:
        # The first answer waits for the load, and for what the engine does once.
        answer = served.ask("POST", f"/predict/{_NAME}", {"inputs": _PROMPT})
        if answer.status != 200:
            sys.exit(f"{_NAME}: {answer.status} {answer.body}")
        if (runtime := served.model(_NAME).get("runtime")) not in (None, "vllm"):
            sys.exit(f"{_NAME} is served by {runtime}, not by vLLM")
        ways = ways_of(served, arguments.tokens)
        with litellm(_NAME, served.port) if arguments.litellm else contextlib.nullcontext() as proxy:
            if proxy is not None:
                through = next(way for way in ways if way.name == "/v1/completions")
                url = f"http://127.0.0.1:{proxy.port}/v1/completions"
                ways.append(Way(name="LiteLLM before it", base=through.name, url=url, body=through.body))
            asyncio.run(measure(ways, runs=arguments.runs, tokens=arguments.tokens))
    for way in ways:
        print(summary(way, {other.name: other for other in ways}))


def ways_of(served: Served, tokens: int) -> list[Way]:
    sampling = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    flags = ("stream", "exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
    straight = {"text_input": _PROMPT, **dict.fromkeys(flags, True)}
    triton = f"http://{served.http_url}/v2/models/{_NAME}/generate_stream"
    gateway = f"http://127.0.0.1:{served.port}"
    return [
        Way(name="Triton", url=triton, body={**straight, "sampling_parameters": json.dumps(sampling)}),
        Way(
            name="/v1/completions",
            base="Triton",
            url=f"{gateway}/v1/completions",
            body={"model": _NAME, "prompt": _PROMPT, "stream": True, **sampling},
        ),
        Way(
            name="Triton with logprobs",
            url=triton,
            body={**straight, "return_logprobs": True, "sampling_parameters": json.dumps({**sampling, "logprobs": 0})},
        ),
        Way(
            name="/predict",
            base="Triton with logprobs",
            url=f"{gateway}/predict/{_NAME}",
            body={"inputs": _PROMPT, "stream": True, "parameters": {"max_new_tokens": tokens, "ignore_eos": True}},
        ),
    ]


async def measure(ways: list[Way], *, runs: int, tokens: int) -> None:
    async with aiohttp.ClientSession() as http:
        for run in range(runs + 1):
            for way in random.Random(run).sample(ways, len(ways)):  # nobody always follows the same one
                first_s, all_s = await ask(http, way)
                if run:  # the first round makes connections
                    way.first_ms.append(first_s * 1e3)
                    way.tokens_per_s.append(tokens / all_s)


async def ask(http: aiohttp.ClientSession, way: Way) -> tuple[float, float]:
    began = time.perf_counter()
    first_s = 0.0
    async with http.post(way.url, json=way.body) as answer:
        if answer.status != 200:
            sys.exit(f"{way.name}: {answer.status} {await answer.text()}")
        async for line in answer.content:
            if line.startswith(b"data:"):
                first_s = first_s or time.perf_counter() - began
                if b'"error"' in line:
                    sys.exit(f"{way.name}: {line.decode()}")
    return first_s, time.perf_counter() - began


def summary(way: Way, ways: Mapping[str, Way]) -> str:
    first, speed = statistics.median(way.first_ms), statistics.median(way.tokens_per_s)
    line = (
        f"{way.name:<21} first token {first:6.2f} ms {spread(way.first_ms)}   {speed:6.1f} tokens/s {spread(way.tokens_per_s)}"
    )
    if not way.base:
        return line
    base = ways[way.base]
    more_ms = first - statistics.median(base.first_ms)
    share = speed / statistics.median(base.tokens_per_s)
    return f"{line}   against {base.name}: {more_ms:+.2f} ms, {share:.3f} times the tokens/s"


def spread(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"(middle half {low:.1f} to {high:.1f})"


def _put_model(incoming: Path) -> None:
    code = "from tests.models.language import ensure_language_models; print(ensure_language_models())"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    shutil.copytree(Path(made.stdout.splitlines()[-1]) / _NAME, incoming / _NAME)


if __name__ == "__main__":
    main()
