"""Which part of the controller an event is for. What enters: events. What leaves: calls, none of which awaits."""

from __future__ import annotations

from modelium.controller.adapters import Adapters
from modelium.controller.admission import Admission
from modelium.controller.desk import Desk
from modelium.controller.events import (
    Analyzed,
    Checked,
    Event,
    Loaded,
    LoadFailed,
    Measured,
    ProcessDied,
    RayDown,
    RayUp,
    Scanned,
    ServerDown,
    ServerUp,
    Unloaded,
    UnloadFailed,
    Wake,
)
from modelium.controller.failures import Failures
from modelium.controller.folders import Folders
from modelium.controller.loads import Loads
from modelium.controller.outages import Outages
from modelium.controller.record import Model


class Reactions:
    """The controller's parts, and the way an event takes to them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.admission = Admission(desk)
        self.failures = Failures(desk, self.admission)
        self.loads = Loads(desk, self.admission, self.failures)
        self.outages = Outages(desk, self.admission, self.loads, self.failures)
        self.adapters = Adapters(desk)
        self.folders = Folders(desk, self.admission, self.loads, self.outages, self.adapters)

    def react(self, event: Event) -> None:
        """Apply one event. An event about a generation that is history changes nothing."""
        match event:
            case Scanned():
                self._desk.recorder.scan(event.seconds)
                if event.lag_s is not None:
                    self._desk.recorder.watcher_lag(event.lag_s)
                self.folders.scanned(event)
            case Analyzed():
                self.folders.analyzed(event)
            case ServerUp():
                self.outages.server_up(event)
                self.adapters.changed()
                self.prepare()  # a base is recognised by all that is attached to it
                self.outages.take_over_all()
            case ServerDown():
                self.outages.server_down(event)
            case RayUp():
                self.outages.take_over_all()
            case RayDown():
                self.outages.ray_down(event)
            case Measured():
                self.outages.measured(event)
            case Wake():
                pass
            case Loaded() | LoadFailed() | Unloaded() | UnloadFailed() | ProcessDied() | Checked():
                model = self._desk.books.models.get(event.key)
                if model is not None and model.generation == event.generation:
                    self._react_for(model, event)

    def _react_for(self, model: Model, event: Loaded | LoadFailed | Unloaded | UnloadFailed | ProcessDied | Checked) -> None:
        match event:
            case Loaded():
                self.loads.loaded(model, event)
                self.outages.measure()
            case LoadFailed():
                self.loads.load_failed(model, event)
            case Unloaded():
                self.loads.unloaded(model, event.seconds)
            case UnloadFailed():
                self.failures.of_unload(model, event)
            case ProcessDied():
                self.outages.process_died(model, event.pid)
            case Checked():
                self.outages.checked(model, event)

    def prepare(self) -> None:
        """The beginning of a pass: adapters go to their bases."""
        self.adapters.settle(self.folders.revise)

    def settle(self, now: float) -> None:
        """The end of a pass: unload what is drained, forget what is removed."""
        for model in list(self._desk.books.models.values()):
            self.loads.settle(model, now)
            if model.removing and not model.occupies:
                self.folders.finish_removal(model)
