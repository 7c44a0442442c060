"""``ModelStreamInfer``: a client's stream enters, each message goes to the lane of its model, their answers leave as they come.

Each message names its model, so one stream may ask several. The answers of one model keep their order; as between two models,
there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from modelium.errors import ModeliumError
from modelium.gateway.asking import Asking
from modelium.gateway.kserve.rules import in_tritons_words, model_called
from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import Callers, Context, passed_on
from modelium.gateway.kserve_grpc.lanes import Lane, Message, Surroundings
from modelium.metrics import Recorder
from modelium.triton.passing import Passing

if TYPE_CHECKING:
    from modelium.controller import Controller


class Streams:
    """The handler."""

    def __init__(self, controller: Controller, asking: Asking, passing: Passing, callers: Callers, recorder: Recorder) -> None:
        self._controller = controller
        self._asking = asking
        self._passing = passing
        self._callers = callers
        self._recorder = recorder

    async def infer(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """``ModelStreamInfer``. Raises what ended a stream to Triton."""
        stream = _Stream(self._around(context))
        try:
            async with asyncio.TaskGroup() as group:
                async for data in requests:
                    await self._take(stream, group, data)
                stream.end()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        finally:
            stream.close()

    async def _take(self, stream: _Stream, group: asyncio.TaskGroup, data: bytes) -> None:
        """Raises ``Malformed``, which ends the stream, as it does at Triton."""
        question, held = wire.question_of(data), 0

        def forget() -> None:
            nonlocal held
            give, held = held, 0
            self._callers.give_back(give)

        try:
            held = self._callers.hold(len(data))
            with in_tritons_words():
                name = model_called(await self._controller.known_target(question.name, timeout_s=stream.around.wait_s()))
        except ModeliumError as error:
            forget()
            await stream.around.say(wire.error_response(stream.around.words_of(error), question.id))
            return
        await stream.lane(name, group).take(Message(data=data, question=question, forget=forget))

    def _around(self, context: Context) -> Surroundings:
        metadata, writing = passed_on(context), asyncio.Lock()

        async def say(data: bytes) -> None:
            async with writing:  # gRPC takes one message after the other
                await context.write(data)

        def open_stream() -> Any:
            return self._passing.stream(timeout_s=context.time_remaining(), metadata=metadata)

        return Surroundings(
            controller=self._controller,
            asking=self._asking,
            recorder=self._recorder,
            say=say,
            open_stream=open_stream,
            wait_s=lambda: self._callers.deadline(context).remaining_s(),
            words_of=lambda error: self._callers.words_of(error, context),
        )


class _Stream:
    """The lanes of one client's stream."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self._lanes: dict[str, Lane] = {}

    def lane(self, name: str, group: asyncio.TaskGroup) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self.around)
            group.create_task(lane.run())
        return lane

    def end(self) -> None:
        for lane in self._lanes.values():
            lane.end()

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()
