"""Waiting for a model that may die silently: its responses enter, the same responses leave, or ``ModelGone`` when it does.

When the process of a python-based backend is killed in the middle of a decoupled answer, Triton (2.51, measured) tells the
client nothing, ever. The controller sees the process end, so what it says of the model is asked while nothing comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from modelium.errors import ModelGone

T = TypeVar("T")

LOOK_EVERY_S = 1.0


async def while_serving(responses: AsyncGenerator[T, None], serves: Callable[[], bool], name: str) -> AsyncGenerator[T, None]:
    """``responses``, until ``serves()`` is False while one is waited for; closed with this generator.

    A timer, for a task a token would cost more.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Task[object] | None = None
    lost = False
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal lost, timer
        if waiting is not None and not serves():
            lost = True
            waiting.cancel()
        else:
            timer = loop.call_later(LOOK_EVERY_S, look)

    timer = loop.call_later(LOOK_EVERY_S, look)
    try:
        while True:
            waiting = asyncio.current_task()
            try:
                response = await anext(responses)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if lost and waiting is not None and waiting.uncancel() == 0:
                    raise ModelGone(f"{name!r} went away in the middle of its answer") from None
                raise
            finally:
                waiting = None
            yield response
    finally:
        timer.cancel()
        await responses.aclose()


async def unless_lost(answer: Coroutine[Any, Any, T], lost: Callable[[], bool], name: str) -> T:
    """The one ``answer`` of a model that answers through response senders, as those on Ray do; ``lost()``: its process died."""
    asking = asyncio.ensure_future(answer)
    try:
        while not (await asyncio.wait([asking], timeout=LOOK_EVERY_S))[0]:
            if lost():
                raise ModelGone(f"{name!r} went away in the middle of its answer")
        return asking.result()
    finally:
        asking.cancel()
