"""What the controller's parts share: the books, the hands, the eyes, and what they may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelium.brain.usage import WINDOW_S
from modelium.config import PolicySettings, Settings
from modelium.controller.background import Background
from modelium.controller.books import Books
from modelium.controller.events import Event
from modelium.controller.readings import Readings
from modelium.controller.work import Work
from modelium.devices import Devices
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.values import Capabilities, ModelOverride, VllmFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """``post`` puts an event into the controller's queue; ``backends`` and ``vllm`` say what the connected Triton has."""

    settings: Settings
    overrides: Mapping[str, ModelOverride]
    books: Books
    background: Background
    work: Work
    readings: Readings
    devices: Devices
    ledger: Ledger
    recorder: Recorder
    post: Callable[[Event], None]
    backends: Callable[[], frozenset[str]]
    vllm: Callable[[], VllmFacts]
    gpu: bool  # this machine has one

    @property
    def policies(self) -> PolicySettings:
        return self.settings.orchestration.policies

    @property
    def usage_window_s(self) -> float:
        return min(WINDOW_S, self.policies.evict_after_idle_seconds)

    def capabilities(self) -> Capabilities:
        return self.settings.capabilities(self.backends(), self.vllm(), gpu=self.gpu)
