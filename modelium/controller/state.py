"""What the controller knows besides the models: the server as it is now, what the scans saw, what the last plan said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from modelium.brain.leaks import Leak
from modelium.controller.server import KnownServer
from modelium.values import NurseryStatus, Unclaimed, WatchDirectory


@dataclass(slots=True)
class ControllerState:
    """``room_is_wanted``: somebody waits for room that models in use hold. ``leaks``: by device, since Triton came up.
    ``nursery``: as last read.
    """

    server: KnownServer = field(default_factory=KnownServer)
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()
    room_is_wanted: bool = False
    leaks: dict[str, Leak] = field(default_factory=dict)
    nursery: NurseryStatus | None = None
    first_scan: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scanned(self) -> bool:
        """Was ``incoming/`` looked at once?"""
        return self.first_scan.is_set()
