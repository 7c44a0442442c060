"""Asking models without HTTP: a transport of its own, in thirty lines, that has leases, retries, deadlines and streams."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest

from modelium.errors import ModelGone, ModeliumError, NotServable, TritonUnavailable
from modelium.gateway.asking import ATTEMPTS, Asking, Waited
from modelium.gateway.codecs import Tensors, encode
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest
from modelium.metrics import Recorder
from modelium.metrics.families import COLD_STARTS, OUTPUT_TOKENS, RETRIES
from modelium.values import Runtime, Task

from .stand_in import StandInController, StandInTriton, engine_of, numbers, profile_of, response, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient


class Lines:
    """Answers lines of text, which are its whole protocol: ``NAME JSON`` by a line of JSON, ``NAME> TEXT`` by lines of text."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in self._answer((await reader.readline()).decode(), Deadline(60)):
                writer.write(f"{line}\n".encode())
        except ModeliumError as error:
            writer.write(f"{error.type}: {error}\n".encode())
        writer.close()

    async def _answer(self, line: str, deadline: Deadline) -> AsyncGenerator[str, None]:
        name, _, said = line.partition(" ")
        if name.endswith(">"):
            async with aclosing(self._asking.generate(name[:-1], lambda _: GenerationRequest(prompt=said), deadline)) as pieces:
                async for piece in pieces:
                    yield piece.text
            return

        async def ask(lease: Lease) -> object:
            call = encode(lease.profile, "application/json", said.encode())
            return call.answer(await self._asking.infer(lease, call, deadline))

        asked = await self._asking.once(name, ask, deadline)
        yield json.dumps(asked.answer, default=lambda array: array.tolist())


class World:
    """A transport of lines over a real socket, before a stand-in controller and a stand-in Triton."""

    def __init__(self) -> None:
        self.controller, self.triton, self.recorder = StandInController(), StandInTriton(), Recorder()
        self.asking = Asking(cast("Controller", self.controller), cast("TritonClient", self.triton), self.recorder)
        profile = profile_of(Task.FEATURE_EXTRACTION)
        self.controller.models["m"] = status_of(profile, max_batch_size=2)
        self.triton.answerer = lambda inputs: {"EMBEDDING": numbers(*([len(text), 0, 0] for (text,) in inputs["TEXT"]))}
        llama = profile_of(Task.TEXT_GENERATION, "llama")
        self.controller.models["llama"] = status_of(llama, runtime=Runtime.VLLM, engine=engine_of())
        self.triton.streamer = lambda inputs: [response("Hel"), response("lo", "stop")]

    async def say(self, line: str) -> str:
        server = await asyncio.start_server(Lines(self.asking).serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(f"{line}\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
        assert self.controller.held == 0, "a lease was kept"
        return answer


async def test_another_transport_answers() -> None:
    world = World()
    assert json.loads(await world.say('m {"inputs": ["a", "bb", "ccc"]}')) == [[1, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert len(world.triton.seen) == 2, "three rows by a batch of two"
    assert await world.say("llama> Once") == "Hel\nlo\n"
    assert world.recorder.counted(OUTPUT_TOKENS) == [(("llama",), 2)]


async def test_another_transport_retries_and_counts_as_http_does() -> None:
    world = World()
    world.controller.cold_s = 1.5
    world.triton.faults = [ModelGone("its stub died"), TritonUnavailable("connection refused")]
    assert json.loads(await world.say('m {"inputs": "a"}')) == [1, 0, 0]
    assert world.controller.gone == ["its stub died", "connection refused"]
    assert world.recorder.counted(RETRIES) == [(("m",), 2)]
    assert world.recorder.counted(COLD_STARTS) == [(("m",), 1)]
    world.triton.faults = [ModelGone("its engine died")]
    assert await world.say("llama> Once") == "Hel\nlo\n"


async def test_another_transport_says_what_is_wrong_in_its_own_shape() -> None:
    world = World()
    assert (await world.say('m {"input": "a"}')).startswith("invalid_body: input: unknown field")
    assert (await world.say('n {"inputs": "a"}')).startswith("unknown_model: ")
    world.triton.faults = [ModelGone("its stub died") for _ in range(ATTEMPTS)]
    assert await world.say('m {"inputs": "a"}') == "model_gone: its stub died\n"
    world.controller.refuse = NotServable("weights do not fit the config")
    assert await world.say('m {"inputs": "a"}') == "not_servable: weights do not fit the config\n"


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    world = World()
    world.triton.streamer = lambda inputs: [response("Hel"), ModelGone("its engine died")]
    assert await world.say("llama> Once") == "Hel\nmodel_gone: its engine died\n"
    assert len(world.triton.seen) == len(world.controller.gone) == 1


async def test_what_must_not_be_repeated_is_tried_once_and_what_it_waited_is_known_with_the_first_part() -> None:
    world = World()
    world.controller.cold_s = 2.0
    waited = Waited()

    def ask(lease: Lease) -> AsyncGenerator[Tensors, None]:
        return world.asking.stream(lease, {}, Deadline(60))

    async with aclosing(world.asking.each("llama", ask, Deadline(60), waited=waited, attempts=1)) as parts:
        await anext(parts)
        assert (waited.seconds, waited.cold, world.controller.held) == (2.0, True, 1)
    assert (world.controller.held, world.triton.cancelled.is_set()) == (0, True)
    world.triton.faults = [ModelGone("its stub died")]
    with pytest.raises(ModelGone):
        await anext(world.asking.each("llama", ask, Deadline(60), attempts=1))
    assert (world.controller.gone, world.recorder.counted(RETRIES)) == (["its stub died"], [])
