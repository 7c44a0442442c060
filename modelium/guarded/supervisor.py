"""Keeps a server up, Triton or Ray: a server enters, calls to ``on_up`` and ``on_down`` leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from modelium.errors import ModeliumError, RuntimeMissing

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STEADY_AFTER_S = 60.0  # a server that ran this long starts again without the pauses of earlier failures


class Server(Protocol):
    """What can be kept up: one that is started here, or one of somebody else's, which only comes and goes."""

    async def start(self) -> None:
        """Return when it answers. Raises ``ModeliumError``; ``RuntimeMissing`` where no retry helps."""

    async def wait(self) -> object:
        """Return when it has ended, with how."""

    async def stop(self) -> None:
        """End it, if it runs."""


class Supervisor:
    """One task that starts the server, waits for its end and starts it again, with growing pauses: 1, 2, 4 … 30 s, or up to
    ``longest_pause_s``.

    ``on_up`` is called when the server answers (what ran on it is gone: bringing it back is the controller's), ``on_down``
    with a sentence each time it has ended or could not be started.
    """

    def __init__(
        self,
        server: Server,
        *,
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        longest_pause_s: float = _LONGEST_PAUSE_S,
    ) -> None:
        self._server = server
        self._longest_pause_s = longest_pause_s
        self._said = ""
        self._on_up = on_up
        self._on_down = on_down

    async def run(self) -> None:
        """Run until cancelled, which stops the server. Raises ``RuntimeMissing``: that heals by no retry."""
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._server.start()
                except RuntimeMissing:
                    raise
                except ModeliumError as error:
                    self._say(str(error))
                    self._on_down(str(error))
                else:
                    self._said = ""
                    up_since = loop.time()
                    self._on_up()
                    ended = await self._server.wait()
                    self._say(str(ended))
                    self._on_down(str(ended))
                    if loop.time() - up_since >= _STEADY_AFTER_S:
                        pause_s = _FIRST_PAUSE_S
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, self._longest_pause_s)
        finally:
            await self._server.stop()

    def _say(self, detail: str) -> None:
        """Once, however often it is tried again."""
        if detail != self._said:
            _log.error("%s", detail)
        self._said = detail
