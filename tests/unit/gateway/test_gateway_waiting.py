"""What a request holds while it waits: its body, once."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from modelium.gateway.predict.endpoint import MOST_HELD_TWICE
from modelium.values import Task

from .stand_in import numbers, profile_of, repeated, served

WAITING = 4
LARGE = 3 * MOST_HELD_TWICE
TEXTS = json.dumps({"inputs": ["x" * 1000] * (LARGE // 1000)}).encode()
PROMPT = json.dumps({"inputs": "x" * LARGE, "stream": True}).encode()
COMPLETION = json.dumps({"model": "m", "prompt": "x" * LARGE}).encode()
FORM = b"".join(
    (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n',
        b"\xff" * LARGE,
        b"\r\n--x--\r\n",
    )
)
EMBEDDED = json.dumps({"model": "m", "input": "x" * LARGE}).encode()
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * LARGE}]}).encode()


async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
    """As a client sends it that holds no copy of its own."""
    for start in range(0, len(body), 2**16):
        yield body[start : start + 2**16]


@pytest.mark.parametrize(
    ("path", "body", "task"),
    [
        ("/predict/m", TEXTS, Task.FEATURE_EXTRACTION),
        ("/predict/m", PROMPT, Task.TEXT_GENERATION),
        ("/predict/m", b"\xff" * LARGE, Task.AUTOMATIC_SPEECH_RECOGNITION),
        ("/v1/completions", COMPLETION, Task.TEXT_GENERATION),
        ("/v1/embeddings", EMBEDDED, Task.FEATURE_EXTRACTION),
        ("/v1/audio/transcriptions", FORM, Task.AUTOMATIC_SPEECH_RECOGNITION),
    ],
)
async def test_who_waits_holds_a_large_body_once(path: str, body: bytes, task: Task) -> None:
    async with served(request_timeout_seconds=60, max_body_bytes=2 * LARGE, max_buffered_bytes=100 * LARGE) as gateway:
        profile = profile_of(task)
        if task is Task.TEXT_GENERATION:
            gateway.serve_vllm(profile)
        else:
            gateway.serve(profile)
        gateway.controller.never = True
        kind = "audio/wav" if task is Task.AUTOMATIC_SPEECH_RECOGNITION else "application/json"
        headers = {"Content-Type": "multipart/form-data; boundary=x" if body is FORM else kind}

        async def ask() -> None:
            async with gateway.http.post(gateway.url + path, data=pieces_of(body), headers=headers) as response:
                raise AssertionError(f"answered: {response.status} {await response.text()}")

        gc.collect()
        tracemalloc.start()
        try:
            asking = [asyncio.create_task(ask()) for _ in range(WAITING)]
            while len(gateway.controller.askers) < WAITING:
                done, _ = await asyncio.wait(asking, timeout=0.01)
                assert not done, done
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for task_ in asking:
            task_.cancel()
            with suppress(asyncio.CancelledError, aiohttp.ClientError):
                await task_
        assert held < WAITING * len(body) * 1.5, f"{held / len(body) / WAITING:.2f} bodies for each request"


async def test_a_large_body_that_waited_is_read_again() -> None:
    async with served(request_timeout_seconds=60, max_body_bytes=2 * LARGE) as gateway:
        url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
        lease = gateway.controller.lease

        async def wait_and_lease(name: str, *, timeout_s: float, on_wait: object) -> object:
            on_wait()  # type: ignore[operator]
            return await lease(name, timeout_s=timeout_s)

        gateway.controller.lease = wait_and_lease  # type: ignore[method-assign,assignment]
        async with gateway.http.post(url, data=pieces_of(TEXTS), headers={"Content-Type": "application/json"}) as response:
            assert response.status == 200
            assert len(await response.json()) == LARGE // 1000
