"""How an entry's forwarders ask its replicas: again where one died, never where an answer had begun, and with one sentence of
what went wrong. Handles and exceptions are stand-ins for Ray's.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelium.resources import templates_directory, triton_directory
from tests.unit.templates.ray_module import DeploymentUnavailableError, RayActorError, RayTaskError, install


@pytest.fixture(scope="module")
def forwarding() -> Iterator[Any]:
    places = [str(templates_directory() / "ray" / "1"), str(triton_directory() / "backends" / "vllm")]
    sys.path[:0] = places
    yield importlib.import_module("modelium_ray.forwarding")
    for place in places:
        sys.path.remove(place)


@pytest.fixture(autouse=True)
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


class Response:
    """Ray's answer to one call, in the future."""

    def __init__(self, said: Any) -> None:
        self.said, self.cancelled = said, False

    def __await__(self) -> Iterator[Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return await self.said.wait() if isinstance(self.said, asyncio.Event) else self.said

    async def __aiter__(self) -> AsyncIterator[Any]:
        for each in self.said:
            if isinstance(each, Exception):
                raise each
            yield each

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Of a deployment: each call is answered by the next of ``answers``."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.calls, self.called = [Response(each) for each in answers], 0, asyncio.Event()
        self.infer = self.generate = SimpleNamespace(remote=self._call)

    def options(self, *, stream: bool) -> Handle:
        return self

    def _call(self, ask: Any) -> Response:
        self.calls += 1
        self.called.set()
        return self.answers[self.calls - 1]


async def answered(forwarding: Any, handle: Handle, *, batches: bool = True) -> list[Any]:
    settings = SimpleNamespace(way="task", inputs=("TEXT",), batches=batches)
    forwarder = forwarding.forwarder_of(settings, SimpleNamespace(handle=handle))
    ask = forwarder.read(SimpleNamespace(array=lambda name: np.array([b"a"], dtype=np.object_)))
    return [(reply.arrays, reply.last) async for reply in forwarder.answer(ask)]


ROWS = {"SCORE": np.array([[1.0]])}


@pytest.mark.parametrize("died", [RayActorError("…"), DeploymentUnavailableError("…")])
async def test_a_request_is_asked_again_when_its_replica_dies_three_times_at_most(forwarding: Any, died: Exception) -> None:
    handle = Handle(died, died, ROWS)
    assert await answered(forwarding, handle) == [(ROWS, True)] and handle.calls == 3
    handle = Handle(died, died, died, ROWS)
    with pytest.raises(
        RuntimeError, match=r"^the replica that computed this died \(3 times, or in the middle of its answer\)$"
    ):
        await answered(forwarding, handle)
    assert handle.calls == 3


async def test_an_error_of_the_model_is_one_sentence_and_not_asked_again(forwarding: Any) -> None:
    handle = Handle(RayTaskError(ValueError("no such word")), ROWS)
    with pytest.raises(RuntimeError, match=r"^ValueError: no such word$"):
        await answered(forwarding, handle)
    with pytest.raises(KeyError):
        await answered(forwarding, Handle(KeyError("something of our own")))
    assert handle.calls == 1


async def test_what_a_replica_refuses_is_the_senders_affair(forwarding: Any) -> None:
    with pytest.raises(forwarding.NotForwarded, match=r"^row 1: TEXT is missing$"):
        await answered(forwarding, Handle("row 1: TEXT is missing"))
    reader = forwarding.TaskForwarder(SimpleNamespace(inputs=("A", "B"), batches=True), SimpleNamespace(handle=0))
    with pytest.raises(forwarding.NotForwarded, match=r"^the request has none of the inputs A, B$"):
        reader.read(SimpleNamespace(array=lambda name: None))


async def test_without_a_batch_dimension_a_request_is_one_row(forwarding: Any) -> None:
    ((arrays, last),) = await answered(forwarding, Handle(ROWS), batches=False)
    assert last and arrays["SCORE"].tolist() == [1.0]


async def test_a_client_that_goes_away_takes_its_call_along(forwarding: Any) -> None:
    handle = Handle(asyncio.Event())
    waiting = asyncio.create_task(answered(forwarding, handle))
    await handle.called.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert handle.answers[0].cancelled


# -- vLLM's stream -----------------------------------------------------------------------------------------------------


def prompt(forwarding: Any, handle: Handle, **tensors: Any) -> tuple[Any, Any]:
    forwarder = forwarding.forwarder_of(SimpleNamespace(way="engine"), SimpleNamespace(handle=handle))
    given = {"text_input": np.array([b"Once"], dtype=np.object_)} | tensors
    return forwarder, forwarder.read(SimpleNamespace(array=given.get, parameters=lambda: '{"temperature": 0}'))


async def streamed(forwarding: Any, handle: Handle) -> list[bool]:
    forwarder, ask = prompt(forwarding, handle)
    return [reply.last async for reply in forwarder.answer(ask)]


def test_a_prompt_is_read_as_tritons_vllm_backend_reads_it(forwarding: Any) -> None:
    _, ask = prompt(forwarding, Handle(), stream=np.array([True]))
    assert (ask.prompt, ask.stream, ask.parameters) == ("Once", True, {"temperature": 0})
    with pytest.raises(forwarding.NotForwarded, match="exclude_input_in_output"):
        prompt(forwarding, Handle(), stream=np.array([True]), exclude_input_in_output=np.array([False]))


async def test_a_stream_is_begun_again_only_while_nothing_of_it_was_seen(forwarding: Any) -> None:
    whole: list[Any] = [({}, False), ({}, True)]
    handle = Handle([RayActorError("…")], whole)
    assert await streamed(forwarding, handle) == [False, True] and handle.calls == 2
    handle = Handle([whole[0], RayActorError("…")], whole)
    with pytest.raises(RuntimeError, match="the replica that computed this died"):
        await streamed(forwarding, handle)
    assert handle.calls == 1


async def test_what_an_engine_refuses_is_the_senders_affair(forwarding: Any) -> None:
    with pytest.raises(forwarding.NotForwarded, match=r"^an engine behind Ray has no LoRA adapters$"):
        await streamed(forwarding, Handle(["an engine behind Ray has no LoRA adapters"]))
