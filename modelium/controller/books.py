"""The controller's books: every model, and what is known of the server. Written by ``Reactions`` and ``Folders`` only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from modelium.controller.record import Model
from modelium.values import Device, Fleet, Unclaimed, WatchDirectory


@dataclass(slots=True)
class Books:
    """``server_generation`` grows each time Triton comes up; ``ready_in_triton``: what it
    served before we looked, name → the fingerprint that our entry was written from ("": not an entry of ours)."""

    models: dict[str, Model] = field(default_factory=dict)
    server_up: bool = False
    server_version: str = ""
    server_detail: str = "not started yet"
    server_starts: int = 0
    server_generation: int = 0
    ready_in_triton: dict[str, str] = field(default_factory=dict)
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()
    room_is_wanted: bool = False  # somebody waits for room that models in use hold
    first_scan: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scanned(self) -> bool:
        """Was ``incoming/`` looked at once?"""
        return self.first_scan.is_set()

    @property
    def server_restarts(self) -> int:
        return max(0, self.server_starts - 1)

    def by_label(self, label: str) -> Model | None:
        """The model that the user knows as ``org/name``."""
        return next((m for m in self.models.values() if m.candidate.label == label), None)

    def places(self, fleet: Fleet) -> dict[str, Device]:
        """Which device each occupying model is on: of a tensor-parallel engine the first, its ranks hold equally much."""
        found = {}
        for key, model in self.models.items():
            if model.bytes_held and model.placement is not None:
                device = fleet.get(model.placement.device_id)
                if device is not None:
                    found[key] = device
        return found
