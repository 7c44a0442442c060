"""Loads and unloads: the steps that a plan, a user or a folder asks for, and what their good ends do to the record.

What enters: a model and what is to become of it, or the end of a piece of work. What leaves: changed records, work. What
became nothing is ``failures``' to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from modelium.brain import bounds
from modelium.brain import usage as use
from modelium.brain.engine.devices import shrink
from modelium.brain.placement.candidates import choose
from modelium.brain.placement.cluster import ClusterRoom
from modelium.brain.placement.rooms import Room, rooms_of
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.controller.admission import Admission
from modelium.controller.desk import Desk
from modelium.controller.events import Loaded, LoadFailed, Wake
from modelium.controller.failures import Failures
from modelium.controller.record import Model
from modelium.devices import processes_of
from modelium.errors import NotServable
from modelium.repository import entry_basis
from modelium.values import (
    Demand,
    DeviceKind,
    ModelOverride,
    ModelProfile,
    Placement,
    Runtime,
    State,
)

log = logging.getLogger(__name__)

RAY_DOWN = "ray"  # the rule of an unload that nobody asked for: Ray went away under the model
_LOOK_AGAIN_S = 1.0


class Loads:
    """Moves models through the table of states."""

    def __init__(self, desk: Desk, admission: Admission, failures: Failures) -> None:
        self._desk = desk
        self._admission = admission
        self._failures = failures

    def begin_load(self, model: Model, placement: Placement, reason: str) -> None:
        """Promise the memory and load."""
        assert model.profile is not None
        model.become(State.LOADING, reason)
        self._take_place(model, placement)
        model.bytes_held = placement.footprint.bytes
        model.loading = model.profile
        model.ray_outages, model.broke_ray = self._desk.ray.outages, False
        model.generation += 1
        written = (model.profile.fingerprint, entry_basis(placement))
        self._desk.work.load(
            model.key,
            model.generation,
            model.profile,
            placement,
            write=model.entry != written,
            fresh=False,
            source=model.source,
        )
        model.entry = written

    def begin_reload(self, model: Model) -> None:
        """A newer revision of a model that serves: beside the old one if there is room for both, else after it."""
        profile, place = model.profile, model.placement
        assert profile is not None and place is not None
        model.retry_at = 0.0
        choice, placement = self._place_beside(model, profile, place)
        if choice.runtime is None:
            model.revision_error = f"the new revision cannot be served: {choice.reason}"
            return
        if placement is None:
            model.want = Demand.RESTORE
            self.begin_unload(model, "revision", "a new revision is to be loaded and there is no room for both")
            return
        model.reloading = True
        model.ray_outages = self._desk.ray.outages
        model.loading = profile
        placement = replace(placement, reason=place.reason)
        model.next_placement = placement
        model.bytes_held += placement.footprint.bytes
        model.entry = (profile.fingerprint, entry_basis(placement))
        source, work = model.source, self._desk.work
        work.load(model.key, model.generation, profile, placement, write=True, fresh=False, beside=True, source=source)
        log.info("%s: a new revision is loaded beside the old one", model.key)

    def places(
        self, model: Model, profile: ModelProfile, rooms: Mapping[str, Room], device: str | None = None
    ) -> tuple[RuntimeChoice, list[Placement]]:
        """What would serve this revision, and where; only on ``device``, if that is said."""
        override, desk = self._override(profile), self._desk
        view = model.view(time.monotonic(), desk.usage_window_s)
        there = override if device is None else replace(override, device=device)
        policies, ray = desk.settings.policies(), desk.fleet().ray
        return choose(view, profile, rooms.values(), there, desk.capabilities(), policies, ray)

    def _override(self, profile: ModelProfile) -> ModelOverride:
        return self._desk.overrides.get(profile.name, ModelOverride())

    def _place_beside(self, model: Model, profile: ModelProfile, place: Placement) -> tuple[RuntimeChoice, Placement | None]:
        """What would serve a new revision, and where beside the old one: on the same device, if it has room for both.

        Never a vllm engine on an accelerator: it starts alone there (``load_order``), and that is for the plan to see to.
        """
        now, window, fleet = time.monotonic(), self._desk.usage_window_s, self._desk.fleet()
        views = [m.view(now, window) for m in self._desk.books.models.values()]
        rooms = rooms_of(fleet.devices, views)
        choice, places = self.places(model, profile, rooms, place.device_id)
        for placement in places:
            room = rooms[placement.device_id]
            if choice.engine and room.device.kind is not DeviceKind.HOST:
                break
            if placement.footprint.bytes <= room.free and ClusterRoom(fleet.ray, views).fits(placement.replicas):
                return choice, placement
            if placement.runtime is Runtime.VLLM:
                there = replace(self._override(profile), device=place.device_id)
                free = {room.device.id: room.free}
                smaller = shrink(profile, placement, [room.device], there, self._desk.settings.policies(), free=free)
                return choice, smaller
        return choice, None

    def begin_unload(self, model: Model, rule: str, reason: str, yields_to: str = "") -> None:
        """Drain; ``settle`` unloads when the last lease is back or the time for that is over. ``yields_to``: for whom."""
        model.become(State.DRAINING, reason)
        model.unload_rule, model.yields_to = rule, yields_to
        model.drain_until = time.monotonic() + self._desk.policies.drain_timeout_seconds
        self._desk.post(Wake())

    def refuse(self, model: Model, reason: str) -> None:
        """Nothing here can serve it: an answer, not an error."""
        model.become(State.UNSUPPORTED, reason)
        model.want = Demand.NONE
        self._admission.reject_waiters(model, NotServable(f"{model.key!r} cannot be served: {reason}"))

    def settle(self, model: Model, now: float) -> None:
        """Unload a model that is drained, or whose time to drain is over; not beside an engine that measures the device.

        Not during its own reload either: the unload could overtake it at Triton. The reload's end brings us here again.
        """
        if model.state is State.DRAINING and self._admission.resume(model):
            self.catch_up(model)
        if model.state is State.LOADED and model.retry_at and now >= model.retry_at and not model.reloading:
            model.retry_at = 0.0
            self.catch_up(model)
        if model.state is not State.DRAINING or model.reloading or (model.leases and now < model.drain_until):
            return
        if self._disturbs_an_engine(model):
            model.drain_until = now + _LOOK_AGAIN_S
            return
        model.become(State.UNLOADING, model.reason)
        model.generation += 1
        processes = (*model.processes, *processes_of(model.replicas), *model.departing)
        model.stop_watching()
        generation = model.generation
        if model.unload_rule in ("crash", RAY_DOWN, bounds.RULE):
            self._desk.work.bury(model.key, generation)
            return
        self._desk.work.unload(
            model.key, generation, processes, remove=model.removing, current=lambda: model.generation == generation
        )

    def _disturbs_an_engine(self, model: Model) -> bool:
        """Whether a vllm engine starts on an accelerator that this model would give memory back to (``load_order``)."""
        place = model.placement
        return place is not None and any(
            other.state is State.LOADING
            and other.placement is not None
            and other.placement.engine is not None
            and other.placement.device_kind is not DeviceKind.HOST
            and not set(place.devices).isdisjoint(other.placement.devices)
            for other in self._desk.books.models.values()
        )

    def _take_place(self, model: Model, placement: Placement) -> None:
        model.placement = placement
        model.estimated_bytes = placement.footprint.estimated_bytes

    def loaded(self, model: Model, event: Loaded) -> None:
        """It answers: give out the leases that were waited for, then see whether it should be here at all."""
        now, seconds = time.monotonic(), event.seconds
        model.departing = event.older
        if model.reloading:
            model.reloading = False
            assert model.next_placement is not None
            self._take_place(model, model.next_placement)
            model.bytes_held = model.next_placement.footprint.bytes
            model.stop_watching()
            model.measured_bytes = None  # of the revision before
        else:
            assert model.placement is not None
            model.become(State.LOADED, model.reason)
        model.serving, model.loading = model.loading, None
        model.weighed_bytes = None  # of the processes before
        model.suspect = False
        model.lost_at = float("-inf")
        model.revision_error = ""
        model.put_off, model.put_off_until = 0, 0.0
        model.forgive()
        model.want = Demand.NONE
        model.loads += 1
        model.load_seconds, model.loaded_at = seconds, now
        model.window = use.start(now, model.window)
        self._desk.recorder.load(model.key, "ok", seconds)
        log.info("%s: loaded in %.2f s", model.key, seconds)
        assert model.serving is not None and model.profile is not None
        self._desk.ledger.remember_load(model.key, model.serving.fingerprint, load_seconds=seconds)
        if model.state is State.DRAINING:  # that began while a revision was loaded beside it
            return
        self._admission.answer_waiters(model)
        if model.removing:
            self.begin_unload(model, "removed", "its folder was removed")
        elif self._admission.unload_is_wanted(model):
            self.begin_unload(model, "user", "unloaded by the user")
        else:
            self.catch_up(model)

    def catch_up(self, model: Model) -> None:
        """Load the newest revision, where an older one serves; who was just writing to the folder has a while to end."""
        newest, serves = model.profile, model.serving
        if newest is None or serves is None or newest.fingerprint == serves.fingerprint:
            return
        if model.state is not State.LOADED or model.reloading:
            return  # its end brings us here
        if time.monotonic() < model.put_off_until:
            model.retry_at = model.put_off_until
        else:
            self.begin_reload(model)

    def adopt(self, model: Model, placement: Placement) -> None:
        """Triton has this very revision READY, from before we looked: nothing to load, its memory is taken."""
        assert model.profile is not None
        now = time.monotonic()
        self._take_place(model, placement)
        model.become(State.LOADED, "Triton had it loaded already")
        model.serving = model.profile
        model.bytes_held = placement.footprint.bytes
        model.entry = None  # what is on disk may have been written for another placement
        model.want, model.loaded_at = Demand.NONE, now
        model.window = use.start(now, model.window)
        log.info("%s: Triton had it loaded already", model.key)
        self._admission.answer_waiters(model)

    def load_failed(self, model: Model, event: LoadFailed) -> None:
        if self._failures.of_load(model, event):
            self.catch_up(model)

    def unloaded(self, model: Model, seconds: float) -> None:
        model.become(State.FAILED if model.unload_rule == RAY_DOWN else State.UNLOADED, model.reason)
        if model.unload_rule == RAY_DOWN:
            model.retry_at = time.monotonic()
        self.let_go(model)
        model.unloads += 1
        self._desk.recorder.unload(model.key, model.unload_rule, seconds)
        if model.serving is not None:
            self._desk.ledger.remember_unload(model.key, model.serving.fingerprint)
        model.serving = None
        if model.removing:
            model.entry = None
        log.info("%s: unloaded in %.2f s (%s)", model.key, seconds, model.unload_rule)
        if model.unload_rule == bounds.RULE:
            self._desk.work.discard(model.key)
            if not model.removing:
                model.failures = max(0, len(model.crashes) - 1)
                self._failures.count(model, State.FAILED, model.reason)
        self._admission.resolve_unload(model)

    def let_go(self, model: Model) -> None:
        model.stop_watching()
        model.bytes_held = 0
        model.weighed_bytes = None
        model.suspect = False
        model.reloading = False
        model.departing = frozenset()
