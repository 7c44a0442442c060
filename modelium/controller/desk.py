"""What the controller's parts share: the books, the hands, the eyes, and what they may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelium.brain.placement.cluster import cluster_devices
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
from modelium.ray import RayService
from modelium.values import Capabilities, Fleet, ModelOverride, Runtime, VllmFacts


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
    ray: RayService
    gpu: bool  # this machine has one

    @property
    def policies(self) -> PolicySettings:
        return self.settings.orchestration.policies

    @property
    def usage_window_s(self) -> float:
        return min(WINDOW_S, self.policies.evict_after_idle_seconds)

    def capabilities(self) -> Capabilities:
        """What may be used now. Ray is no backend of Triton's: its entries are python's."""
        backends, ray = self.backends(), self.ray.facts
        if "python" in backends and not ray.missing:
            backends |= {Runtime.RAY.value}
        return self.settings.capabilities(backends, self.vllm(), ray, gpu=self.gpu)

    def fleet(self) -> Fleet:
        """This machine's devices, and those of a Ray cluster elsewhere."""
        ray = self.ray.view()
        added = cluster_devices(ray, self.settings.devices.gpu_memory_fraction)
        return Fleet(devices=(*self.devices.fleet().devices, *added), ray=ray)
