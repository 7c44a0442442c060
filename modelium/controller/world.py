"""What the controller asks of the world, and what a step may know besides its record: settings, devices, Triton and Ray.

What enters: the configuration and the rooms that look. What leaves: values. This is the ``Questions`` port.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from modelium.brain.leaks import Leak, marked
from modelium.brain.placement.cluster import cluster_devices
from modelium.brain.usage import WINDOW_S
from modelium.config import Settings
from modelium.controller.events import About, Event
from modelium.controller.life.context import Context
from modelium.controller.life.effects import Check, Watch
from modelium.controller.life.events import ProcessDied
from modelium.controller.life.record import Wish
from modelium.controller.readings import Readings
from modelium.controller.server import Server
from modelium.ray import RayService
from modelium.values import Capabilities, Demand, Device, DeviceKind, Fleet, ModelOverride, Policies, Runtime, override_of


class World:
    """``server``: as it was when Modelium started; its ways to Triton do not change. ``leaks``: as they are now, by device."""

    def __init__(
        self,
        settings: Settings,
        server: Server,
        ray: RayService,
        readings: Readings,
        post: Callable[[Event], None],
        *,
        leaks: Mapping[str, Leak],
    ) -> None:
        self._settings = settings
        self._leaks = leaks
        self._server = server
        self._readings = readings
        self._post = post
        self._gpu = any(device.kind is DeviceKind.CUDA for device in server.devices.fleet().devices)
        self.ray = ray
        self.overrides: Mapping[str, ModelOverride] = settings.overrides()
        self.policies: Policies = settings.policies()
        self.usage_window_s = min(WINDOW_S, settings.orchestration.policies.evict_after_idle_seconds)
        self._devices: tuple[Device, ...] = ()  # as of the last look: a step may not take the time to look
        self.fleet()

    def context(self) -> Context:
        """What a step may know now."""
        policies = self._settings.orchestration.policies
        return Context(
            now=time.monotonic(),
            drain_timeout_s=policies.drain_timeout_seconds,
            load_retries=policies.load_retries,
            retry_backoff_s=policies.retry_backoff_seconds,
            usage_window_s=self.usage_window_s,
            load_on_discovery=self._settings.orchestration.load_on_discovery,
            devices=self._devices,
            ray_outages=self.ray.outages,
            ray_detail=self.ray.view().detail,
        )

    def first_wish(self, name: str, label: str, *, pinned: bool) -> Wish:
        """Who wants a model loaded when its folder appears. ``pinned``: by a user, before."""
        orchestration = self._settings.orchestration
        return Wish(
            want=Demand.DISCOVERY if orchestration.load_on_discovery else Demand.NONE,
            since=time.monotonic(),
            pinned=pinned or override_of(self.overrides, name).pin,
            always_loaded=not {name, label}.isdisjoint(orchestration.policies.always_loaded),
        )

    def capabilities(self) -> Capabilities:
        """What may be used now. Ray is no backend of Triton's: its entries are python's."""
        backends, ray = self._server.backends(), self.ray.facts
        if "python" in backends and not ray.missing:
            backends |= {Runtime.RAY.value}
        return self._settings.capabilities(backends, self._server.vllm(), ray, gpu=self._gpu)

    def fleet(self) -> Fleet:
        """This machine's devices, and those of a Ray cluster elsewhere."""
        ray = self.ray.view()
        added = cluster_devices(ray, self._settings.devices.gpu_memory_fraction)
        here = (marked(device, self._leaks.get(device.id)) for device in self._server.devices.fleet().devices)
        fleet = Fleet(devices=(*here, *added), ray=ray)
        self._devices = fleet.devices
        return fleet

    def check(self, key: str, order: Check) -> None:
        """Does it still serve? Ends in ``Checked``."""
        self._readings.check(key, order)

    def watch(self, key: str, order: Watch) -> Iterator[Callable[[], None]]:
        """Tell when a process ends: one ``ProcessDied`` each. Begins with each as its end of the watch is taken."""
        for process in order.processes:
            died = About(key, ProcessDied(number=order.number, pid=process.pid))
            yield self._server.devices.watch_exit(process, partial(self._post, died))

    def measure(self, generation: int, places: Callable[[], Mapping[str, Device]]) -> None:
        """A reading of Triton and of all processes; ends in ``Measured``."""
        self._readings.measure(generation, places())
