"""Outages: a process died, Triton went away or came back, a measurement shows that somebody else changed something.

What enters: what was seen of Triton and its processes. What leaves: changed records, and loads that heal.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from modelium.brain import lifecycle
from modelium.brain import usage as use
from modelium.brain.bounds import Held, who_outgrew
from modelium.brain.placement.rooms import rooms_of
from modelium.controller.admission import Admission
from modelium.controller.desk import Desk
from modelium.controller.events import Checked, Measured, ProcessDied, RayDown, ServerDown, ServerUp
from modelium.controller.failures import Failures
from modelium.controller.loads import RAY_DOWN, Loads
from modelium.controller.record import Model
from modelium.devices import Process
from modelium.values import Decision, Demand, DeviceKind, RayState, Runtime, State, Verb

log = logging.getLogger(__name__)

_CRASH_WINDOW_S = 300.0
_SAME_OUTAGE_S = 10.0
_STEADY_AFTER_S = 30.0
_ONE_BY_ONE_S = 5.0


class Outages:
    """Keeps the records true when Triton and its processes do what nobody asked for."""

    def __init__(self, desk: Desk, admission: Admission, loads: Loads, failures: Failures) -> None:
        self._desk = desk
        self._admission = admission
        self._loads = loads
        self._failures = failures

    def measure(self) -> None:
        """Ask for a reading of Triton and of the processes."""
        self._desk.readings.measure(self._desk.books.server_generation, self._desk.books.places(self._desk.fleet()))

    def process_died(self, model: Model, pid: int) -> None:
        """A process that was watched ended. Where an unload is under way, that is what it is for."""
        if model.state is State.LOADED:
            self.crashed(model, f"its process {pid} died")

    def crashed(self, model: Model, detail: str) -> None:
        """Its process died though Triton calls it READY: load it anew beside the corpse, a plain load would do nothing."""
        now = time.monotonic()
        model.stop_watching()
        model.deaths += 1
        model.generation += 1
        model.suspect = model.reloading = False
        if now - model.loaded_at > _STEADY_AFTER_S:
            model.crashes.clear()  # it served for a while: not the kind that dies again and again
        model.crashes.append(now)
        recent = sum(1 for at in model.crashes if at > now - _CRASH_WINDOW_S)
        if recent > self._desk.policies.load_retries:
            model.failures = self._desk.policies.load_retries
            self._loads.let_go(model)
            model.become(State.FAILED, detail)
            self._desk.work.discard(model.key)
            self._failures.count(model, State.FAILED, f"{detail}, the {recent}th time in {_CRASH_WINDOW_S:.0f} s")
            return
        log.warning("%s: %s; loading it again", model.key, detail)
        place = model.placement
        if place is not None and place.engine is not None and place.device_kind is not DeviceKind.HOST:
            # It starts alone there (``load_order``), and that is for the plan to see to.
            model.want = max(model.want, Demand.RESTORE)
            model.entry = None  # written anew, its load is a real one: Triton still calls the corpse READY
            self._loads.begin_unload(model, "crash", f"{detail}; it is loaded again in its turn")
            model.drain_until = now
            return
        model.become(State.LOADING, f"{detail}; loading it again")
        model.loading = model.profile if model.profile is not None else model.serving
        assert model.loading is not None and model.placement is not None
        source = model.source if model.loading is model.profile else None
        self._desk.work.revive(model.key, model.generation, model.loading, model.placement, source=source)

    def checked(self, model: Model, event: Checked) -> None:
        if not model.suspect or model.state is not State.LOADED:
            return
        model.suspect = False
        if event.serves:
            self._admission.answer_waiters(model)
        elif "died" in event.detail:
            self.crashed(model, event.detail)
        else:
            self._lost(model, event.detail)

    def _lost(self, model: Model, detail: str) -> None:
        """Triton unloaded it without being asked by us."""
        log.warning("%s: Triton does not serve it any more: %s", model.key, detail)
        model.generation += 1
        self._loads.let_go(model)
        model.become(State.UNLOADED, f"Triton does not serve it any more: {detail}")
        model.serving = None

    def measured(self, event: Measured) -> None:
        if event.generation != self._desk.books.server_generation or not self._desk.books.server_up:
            return
        now = time.monotonic()
        weighed: list[Model] = []
        for key, model in self._desk.books.models.items():
            if model.state is not State.LOADED or model.loaded_at > event.started_at:
                continue
            statistics = event.statistics.get(key)
            if statistics is not None:
                model.window = use.observe(
                    model.window, completed=statistics.completed, now=now, window_s=self._desk.usage_window_s
                )
            if event.processes is not None and not model.suspect and not model.reloading:
                all_of_it = event.processes.get(key, ())
                model.departing &= frozenset(all_of_it)
                found = tuple(process for process in all_of_it if process not in model.departing)
                if not model.processes and not found:
                    self.crashed(model, "its process died")  # before anybody could watch it
                    continue
                model.replicas = event.replicas.get(key, ())
                if not model.processes:
                    self._watch_processes(model, found)
                if (held := event.held.get(key)) and not model.departing:
                    self._weighed(model, held)
                    weighed.append(model)
            entry = event.index.get(key)
            if entry is not None and entry.state in ("", "UNAVAILABLE") and not (model.suspect or model.reloading):
                self._lost(model, entry.reason or "it was never asked to")
                if not entry.state:  # Triton is another one than before: nobody unloaded this, it was lost
                    model.want = max(model.want, Demand.RESTORE)

        self._bound(weighed)

    def _bound(self, weighed: list[Model]) -> None:
        """Unload what took far more of the host than was thought, where others are short of it (``brain.bounds``)."""
        (host,) = (device for device in self._desk.fleet().devices if device.id == "host")
        held = [
            Held(model=m.key, held_bytes=m.weighed_bytes or 0, expected_bytes=self._expected(m))
            for m in weighed
            if m.state is State.LOADED and m.placement is not None and m.placement.device_id == host.id
        ]
        gone = who_outgrew(held, host, pressure_fraction=self._desk.settings.policies().pressure_fraction)
        if gone is None:
            return
        model, now = self._desk.books.models[gone.model], time.monotonic()
        log.error("%s: %s", model.key, gone.reason)
        model.remember(Decision(at=now, model=model.key, verb=Verb.UNLOAD, rule=gone.rule, reason=gone.reason))
        if now - model.loaded_at > _STEADY_AFTER_S:
            model.crashes.clear()
        model.crashes.append(now)  # as if it had died of itself: so it is not loaded again and again
        model.deaths += 1
        model.entry = None  # written anew, its load is a real one: Triton calls the corpse READY
        model.measured_bytes = None  # an accident, and nothing to plan the next load with
        if model.serving is not None:
            self._desk.ledger.remember_measurement(model.key, model.serving.fingerprint, self._expected(model))
        self._loads.begin_unload(model, gone.rule, gone.reason)
        model.drain_until = now  # what it answers just now may be what makes it grow

    def _expected(self, model: Model) -> int:
        """What its user states, or its files let expect; not what it was once seen to take: that may have been too much."""
        override = self._desk.overrides.get(model.key)
        return (override.memory_bytes if override is not None else None) or model.estimated_bytes

    def ray_down(self, event: RayDown) -> None:
        """What Ray served is gone: the processes in front of it are ended, and it is brought back when Ray is.

        The model that was alone in loading may be the cause: that counts as its failure, as it does when Triton dies.
        """
        log.error("Ray is down: %s", event.detail)
        now = time.monotonic()
        loading = [m for m in self._desk.books.models.values() if m.state is State.LOADING and _is_rays(m)]
        if len(loading) == 1:
            loading[0].broke_ray = True
        for model in self._desk.books.models.values():
            if not _is_rays(model):
                continue
            reason = f"Ray is down: {event.detail}"
            if model.state is State.LOADED:
                model.want = max(model.want, Demand.RESTORE)
                model.deaths += 1
                model.entry = None  # written anew, its load is a real one: Triton calls the corpse READY
                self._loads.begin_unload(model, RAY_DOWN, reason)
                model.drain_until = now
            if model.state is State.LOADING or model.reloading:
                self._desk.work.end(model.key)  # its load would wait for a Ray that does not answer; it fails now

    def _watch_processes(self, model: Model, processes: tuple[Process, ...]) -> None:
        model.processes = processes
        for process in processes:
            died = ProcessDied(key=model.key, generation=model.generation, pid=process.pid)
            model.exit_watches.append(self._desk.devices.watch_exit(process, partial(self._desk.post, died)))

    def _weighed(self, model: Model, held: int) -> None:
        """Keep the largest measurement of this revision: a model grows with its first large batch.

        A vllm engine was given what was planned for it, cache pages that it has not touched yet included.
        """
        model.weighed_bytes = held
        model.measured_bytes = max(held, model.measured_bytes or 0)
        override = self._desk.overrides.get(model.key)
        if override is None or override.memory_bytes is None:  # what the user states is kept free, used or not
            place = model.placement
            planned = place.footprint.estimated_bytes if place is not None and (place.engine or place.replicas) else 0
            model.bytes_held = max(model.measured_bytes, planned)
        if model.serving is not None:
            self._desk.ledger.remember_measurement(model.key, model.serving.fingerprint, model.measured_bytes)

    def server_up(self, event: ServerUp) -> None:
        books = self._desk.books
        books.server_up = True
        books.server_version, books.server_detail = event.version, ""
        books.server_starts += 1
        books.server_generation += 1
        ready = frozenset(name for name, entry in event.index.items() if entry.state == "READY")
        books.ready_in_triton = {name: event.owned.get(name, "") for name in ready}
        if books.server_starts > 1:
            self._desk.recorder.triton_restart()
        log.info("Triton %s is up", event.version)

    def take_over_all(self) -> None:
        """Of what Triton serves already, keep what is known."""
        books = self._desk.books
        for name in list(books.ready_in_triton):
            model = books.models.get(name)
            if model is not None and model.state is State.UNLOADED:
                self.take_over(model)

    def take_over(self, model: Model) -> None:
        """Triton served it before we looked (an external one, and we were restarted): the same revision stays as it is."""
        written_from = self._desk.books.ready_in_triton.pop(model.key, "")  # true once: later it is ours to know
        if model.profile is None or written_from != model.profile.fingerprint:
            model.want = max(model.want, Demand.RESTORE)
            return
        choice, places = self._loads.places(model, model.profile, rooms_of(self._desk.fleet().devices, ()))
        rays = choice.runtime is Runtime.RAY or not places
        if rays and self._desk.ray.view().state is RayState.DOWN:  # a cluster that has not answered yet has no places
            self._desk.books.ready_in_triton[model.key] = written_from
        elif places:
            self._loads.adopt(model, places[0])

    def server_down(self, event: ServerDown) -> None:
        """Everything it had loaded is gone. What was loaded or loading is brought back when it is up again.

        The model that was loading when Triton died may be the cause: that counts as its failure. Several that were are
        brought back one by one, so that the cause is alone the next time.
        """
        books = self._desk.books
        books.server_detail = event.detail
        if not books.server_up:
            return
        books.server_up = False
        log.error("Triton is down: %s", event.detail)
        now = time.monotonic()
        # Often the load's own call breaks first: then it is UNLOADED again by now.
        loading = [m for m in books.models.values() if m.state is State.LOADING or m.lost_at > now - _SAME_OUTAGE_S]
        for model in books.models.values():
            while model.crashes and model.crashes[-1] > now - _SAME_OUTAGE_S:
                model.crashes.pop()  # its process died of this, not of itself
            if model.state not in lifecycle.OCCUPYING and model not in loading:
                self._loads.let_go(model)  # also what could not be unloaded
                continue
            model.generation += 1
            leaving = model.state in (State.DRAINING, State.UNLOADING)
            self._loads.let_go(model)
            model.serving = model.loading = None
            if loading == [model]:
                self._failures.count(model, State.UNLOADED, f"Triton died while it loaded: {event.detail}")
            else:
                model.become(State.UNLOADED, f"Triton is down: {event.detail}")
                model.retry_at = now + _ONE_BY_ONE_S * loading.index(model) if model in loading else 0.0
            if not leaving and not model.removing and model.retry_at is not None:
                model.want = max(model.want, Demand.RESTORE)
            self._admission.resolve_unload(model)


def _is_rays(model: Model) -> bool:
    return model.placement is not None and model.placement.runtime is Runtime.RAY
