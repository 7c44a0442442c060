"""Lives of models on paper: events are told, and what was asked of the world is read back in short words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelium.controller.life import effects as do
from modelium.controller.life import events as happens
from modelium.controller.life.context import Context
from modelium.controller.life.events import LifeEvent
from modelium.controller.life.record import Folder, Record, Wish
from modelium.controller.life.table import step
from modelium.devices import Process
from modelium.errors import LoadFailed, ModeliumError
from modelium.ledger import Facts as Remembered
from modelium.values import (
    Candidate,
    Decision,
    Demand,
    ModelProfile,
    Placement,
    State,
    Verb,
)
from tests.unit.brain.worlds import GIB, host, placed, profile

NOW = 10_000.0
DRAIN_S = 30.0
HERE = placed(GIB, host())
FIRST, SECOND = profile("m", fingerprint="first"), profile("m", fingerprint="second")
STUB = Process(pid=77, created_at=1)
CONTEXT = Context(now=NOW, drain_timeout_s=DRAIN_S, load_retries=2, devices=(host(),))
QUIET = do.Say | do.CountLoad | do.CountUnload | do.CountDecision | do.CountPreload | do.Measure | do.Wake


def candidate(signature: str = "s1", **changes: object) -> Candidate:
    plain = Candidate(
        name="m", label="m", path=Path("/incoming/m"), root=Path("/incoming"), signature=signature, newest_mtime=0.0
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def decision(verb: Verb, rule: str = "plan.3", reason: str = "there is room", **changes: object) -> Decision:
    return replace(Decision(at=NOW, model="m", verb=verb, rule=rule, reason=reason), **changes)  # type: ignore[arg-type]


# -- events, with what a history leaves unsaid -----------------------------------------------------------------------


def seen(signature: str = "s1", **changes: bool) -> happens.FolderSeen:
    return happens.FolderSeen(candidate=candidate(signature), **changes)


def analyzed(found: ModelProfile = FIRST, signature: str = "s1") -> happens.Analyzed:
    return happens.Analyzed(signature=signature, seal=signature, analysis=found)


def revised(found: ModelProfile = FIRST, **changes: object) -> happens.Revised:
    plain = happens.Revised(profile=found, remembered=Remembered(), estimated_bytes=GIB)
    return replace(plain, **changes)  # type: ignore[arg-type]


def load(found: ModelProfile = FIRST, place: Placement = HERE) -> happens.LoadDecided:
    return happens.LoadDecided(decision=decision(Verb.LOAD, placement=place), profile=found, placement=place)


def reload(found: ModelProfile = SECOND, place: Placement | None = HERE) -> happens.ReloadDecided:
    return happens.ReloadDecided(profile=found, placement=place)


def evict(rule: str = "evict.5", beneficiary: str = "", moves_to: str = "") -> happens.UnloadDecided:
    return happens.UnloadDecided(decision(Verb.UNLOAD, rule, "idle for long", beneficiary=beneficiary, moves_to=moves_to))


def loaded(number: int) -> happens.HasLoaded:
    return happens.HasLoaded(number=number, seconds=2.0)


def failed(number: int, error: ModeliumError | None = None) -> happens.NotLoaded:
    return happens.NotLoaded(number=number, seconds=1.0, error=error or LoadFailed("size mismatch"))


def unloaded(number: int) -> happens.HasUnloaded:
    return happens.HasUnloaded(number=number, seconds=0.5)


def read(*processes: Process, held: int = GIB // 2, **changes: object) -> happens.Read:
    plain = happens.Read(started_at=NOW + 1e6, completed=0, processes=processes, held=held)
    return replace(plain, **changes)  # type: ignore[arg-type]


PASS = happens.PassEnds()
ARRIVED: tuple[LifeEvent, ...] = (seen(), analyzed(), revised())
SERVES: tuple[LifeEvent, ...] = (*ARRIVED, load(), loaded(1))
SEEN_AT_WORK: tuple[LifeEvent, ...] = (*SERVES, read(STUB))


# -- telling ---------------------------------------------------------------------------------------------------------


def folder_found(**wish: object) -> Record:
    """Nothing happened yet."""
    return Record(key="m", folder=Folder(candidate=candidate("")), wish=replace(Wish(), **wish))  # type: ignore[arg-type]


@dataclass(slots=True)
class Life:
    """Tells events one after the other. ``asked``: the effects of the last ``tell()``, in short words, without what is only
    counted or logged.
    """

    record: Record = field(default_factory=folder_found)
    context: Context = CONTEXT
    effects: list[do.Effect] = field(default_factory=list)

    def tell(self, *events: LifeEvent) -> Life:
        self.effects = []
        for event in events:
            self.record, effects = step(self.record, event, self.context)
            self.effects += effects
        return self

    def at(self, seconds: float) -> Life:
        """So many seconds after the beginning."""
        self.context = replace(self.context, now=NOW + seconds)
        return self

    @property
    def asked(self) -> list[str]:
        return [short(effect) for effect in self.effects if not isinstance(effect, QUIET)]

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def want(self) -> Demand:
        return self.record.wish.want

    @property
    def held(self) -> int:
        return self.record.memory.held


def short(effect: do.Effect) -> str:
    match effect:
        case do.Load(number=number, how=how, write=write):
            return f"load {number} {how.value}{' written' if write else ''}"
        case do.Unload(number=number, remove=remove):
            return f"unload {number}{' and remove' if remove else ''}"
        case do.Bury(number=number):
            return f"bury {number}"
        case do.Reject(error=error):
            return f"reject: {error}"
        case do.RememberQuarantine() | do.RememberLoad() | do.RememberUnload() | do.RememberMeasurement() | do.LiftQuarantine():
            return f"{type(effect).__name__} {effect.fingerprint}"
        case do.Analyze(soon=soon):
            return f"analyze{' soon' if soon else ''}"
        case _:
            return type(effect).__name__


def told(*events: LifeEvent, **wish: object) -> Life:
    return Life(record=folder_found(**wish)).tell(*events)


def kinds(effects: Iterable[do.Effect]) -> set[type]:
    return {type(effect) for effect in effects}
