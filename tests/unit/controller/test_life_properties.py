"""Whatever happens to a model, in whatever order: no illegal transition, no leased model unloaded, all memory comes back,
nobody waits in vain, and an event that comes twice is an event once.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelium.controller.life import effects as do
from modelium.controller.life import events as happens
from modelium.controller.life.events import LifeEvent, WorkEnd
from modelium.controller.life.obstacles import obstacle
from modelium.controller.life.phases import Absent, AdapterFolder, Draining, Loaded, Loading, Standing, Unloading
from modelium.controller.life.table import step
from modelium.controller.life.views import view_of, was_only_used
from modelium.devices import Process
from modelium.errors import (
    FolderChanged,
    LoadFailed,
    MachineTrouble,
    ModeliumError,
    OutOfMemory,
    RayUnavailable,
    TritonUnavailable,
)
from modelium.ledger import Facts as Remembered
from modelium.values import Runtime, State, Verb
from tests.unit.brain.worlds import GIB, gpu, placed, profile
from tests.unit.controller.histories import (
    HERE,
    Life,
    analyzed,
    candidate,
    decision,
    evict,
    load,
    reload,
    revised,
)
from tests.unit.controller.test_histories import BROKEN, CUT, ON_GPU, ON_RAY, POET

ERRORS: tuple[ModeliumError, ...] = (
    LoadFailed("size mismatch"),
    FolderChanged("written to"),
    MachineTrouble("the disk is full"),
    OutOfMemory("out of memory", GIB),
    OutOfMemory("out of memory", 100 * GIB),
    RayUnavailable("no head"),
    TritonUnavailable("connection refused"),
)
PLACES = (HERE, ON_RAY, ON_GPU, placed(2 * GIB, gpu(), Runtime.ONNXRUNTIME))
REVISIONS = tuple(profile("m", fingerprint=name) for name in ("first", "second", "third"))
STUBS = (Process(pid=7, created_at=1), Process(pid=8, created_at=2))


class AnyLife(RuleBasedStateMachine):
    """Does what the rooms around a life may do, and checks after each step."""

    @initialize(discovers=st.booleans())
    def begin(self, discovers: bool) -> None:
        self.life = Life()
        self.life.context = replace(self.life.context, load_on_discovery=discovers)
        self.orders: list[do.Load | do.Unload | do.Bury] = []  # work that was asked for; each may end well, badly or late
        self.stuck = False  # an unload failed: nobody knows whether the memory is free
        self.signature = 0

    # -- how anything happens ----------------------------------------------------------------------------------------

    def happen(self, event: LifeEvent) -> None:
        before, now = self.life.record, self.life.context.now
        after, effects = step(before, event, self.life.context)
        twice, again = step(after, event, self.life.context) if isinstance(event, WorkEnd) else (after, ())
        assert twice == after and not again, "an event twice is an event once"
        self.life.record = after
        if was_only_used(before, after):
            once, then = (view_of(record, now, 60.0) for record in (before, after))
            assert replace(once, usage=then.usage) == then, "more than its use has changed"
        for effect in effects:
            match effect:
                case do.Load() | do.Unload() | do.Bury():
                    self.orders.append(effect)
                    leaving = before.phase.leaving if isinstance(before.phase, Draining) else None
                    if leaving is not None and not isinstance(effect, do.Load):
                        assert not before.use.leases or now >= leaving.until, "a leased model was unloaded"
                case do.Grant() | do.Reject():
                    self.grant_or_reject(effect)
                case _:
                    pass

    def grant_or_reject(self, effect: do.Grant | do.Reject) -> None:
        """As ``Models`` does: each that waited gets a lease, or the error."""
        waiting = self.life.record.use.waiting
        if waiting:
            self.happen(happens.WaitingChanged(0))
        for _ in range(waiting if isinstance(effect, do.Grant) else 0):
            self.happen(happens.LeaseTaken())

    # -- the folder --------------------------------------------------------------------------------------------------

    @rule(writes=st.booleans(), again=st.booleans())
    def scan(self, writes: bool, again: bool) -> None:
        self.signature += writes
        self.happen(happens.FolderSeen(candidate=candidate(f"s{self.signature}"), again=again))

    @rule(found=st.sampled_from([*REVISIONS, CUT, BROKEN, POET]), stale=st.booleans())
    def analyze(self, found: object, stale: bool) -> None:
        if self.life.record.folder.analyzing:
            signature = f"s{self.signature - stale}"
            self.happen(replace(analyzed(), analysis=found, signature=signature, seal=signature))  # type: ignore[arg-type]

    @rule(
        was=st.sampled_from([Remembered(), Remembered(loaded=True), Remembered(quarantine="q", quarantine_seal="s0")]),
        ready=st.booleans(),
    )
    def settle_adapters(self, was: Remembered, ready: bool) -> None:
        record = self.life.record
        if record.folder.gone:
            return
        if isinstance(record.phase, AdapterFolder):
            self.happen(happens.Attached(standing=Standing.ATTACHED, reason="served as llama:m", base="llama"))
        elif record.folder.plain is not None:
            self.happen(revised(record.folder.plain, remembered=was, ready_in_triton=ready))

    @rule()
    def remove(self) -> None:
        self.happen(happens.FolderGone())

    # -- decisions ---------------------------------------------------------------------------------------------------

    @rule(place=st.sampled_from(PLACES), verb=st.sampled_from([Verb.LOAD, Verb.LOAD, Verb.LOAD, Verb.REFUSE, Verb.WAIT]))
    def plan_load(self, place: object, verb: Verb) -> None:
        record, now = self.life.record, self.life.context.now
        found, retry_at = record.folder.profile, record.tries.retry_at
        wanted = isinstance(record.phase, Absent) and record.state in (State.UNLOADED, State.FAILED)
        if not wanted or found is None or record.folder.gone or retry_at is None or retry_at > now:
            return
        match verb:
            case Verb.LOAD:
                self.happen(load(found, place))  # type: ignore[arg-type]
            case Verb.REFUSE:
                self.happen(happens.RefusalDecided(decision(verb, "plan.1", "no runtime")))
            case _:
                self.happen(happens.WaitDecided(decision(verb, "plan.4", "no room")))

    @precondition(lambda self: isinstance(self.life.record.phase, Loaded))
    @rule(
        rule=st.sampled_from(["evict.5", "evict.6", "evict.7"]), outgrew=st.booleans(), moves_to=st.sampled_from(["", "cuda:1"])
    )
    def plan_unload(self, rule: str, outgrew: bool, moves_to: str) -> None:
        unload = evict(rule, "other", moves_to)
        self.happen(happens.Outgrew(rule="bound.1", reason="too much") if outgrew else unload)

    @rule(place=st.sampled_from([HERE, None]), refused=st.booleans())
    def plan_reload(self, place: object, refused: bool) -> None:
        due, found = self.life.record.reload_is_due_at, self.life.record.folder.profile
        if due is not None and due <= self.life.context.now and found is not None:
            self.happen(happens.ReloadRefused("no runtime") if refused else reload(found, place))  # type: ignore[arg-type]

    @rule(is_waited_for=st.booleans(), disturbs=st.booleans(), seconds=st.sampled_from([0, 0, 1, 31, 400]))
    def end_pass(self, is_waited_for: bool, disturbs: bool, seconds: int) -> None:
        self.life.context = replace(self.life.context, now=self.life.context.now + seconds)
        self.happen(happens.PassEnds(is_waited_for=is_waited_for, disturbs=disturbs))

    # -- the ends of work, whatever their order, and late --------------------------------------------------------------

    @precondition(lambda self: self.orders)
    @rule(which=st.integers(0, 100), error=st.none() | st.sampled_from(ERRORS))
    def end_work(self, which: int, error: ModeliumError | None) -> None:
        order = self.orders[which % len(self.orders)]
        is_its = isinstance(self.life.record.phase, Unloading) and self.life.record.phase.number == order.number
        match order:
            case do.Load(number=number):
                ends = happens.NotLoaded(number=number, seconds=1.0, error=error) if error else None
                self.happen(ends or happens.HasLoaded(number=number, seconds=1.0))
            case _ if error is None:
                self.happen(happens.HasUnloaded(number=order.number, seconds=1.0))
            case _:
                self.stuck |= is_its
                self.happen(happens.NotUnloaded(number=order.number, seconds=1.0, error=error))

    @rule(number=st.integers(1, 6), outcome=st.sampled_from(["serves", "died", "gone"]))
    def check(self, number: int, outcome: str) -> None:
        self.happen(happens.Checked(number=number, serves=outcome == "serves", died=outcome == "died", detail="looked"))

    @rule(number=st.integers(1, 6))
    def die(self, number: int) -> None:
        self.happen(happens.ProcessDied(number=number, pid=7))

    @rule(
        processes=st.sampled_from([(), STUBS[:1], STUBS, None]),
        held=st.sampled_from([0, GIB, 3 * GIB]),
        in_triton=st.sampled_from(["READY", "READY", "READY", "", "UNAVAILABLE", None]),
    )
    def measure(self, processes: tuple[Process, ...] | None, held: int, in_triton: str | None) -> None:
        started_at = self.life.context.now
        self.happen(happens.Read(started_at=started_at, processes=processes, held=held, in_triton=in_triton))

    @rule(alone=st.booleans())
    def lose_server(self, alone: bool) -> None:
        alone = alone and isinstance(self.life.record.phase, Loading)
        self.happen(happens.ServerLost(detail="killed", alone=alone))
        self.stuck = False

    @rule(alone=st.booleans())
    def lose_ray(self, alone: bool) -> None:
        self.life.context = replace(self.life.context, ray_outages=self.life.context.ray_outages + 1)
        self.happen(happens.RayLost(detail="its head died", alone=alone))

    # -- requests and users ------------------------------------------------------------------------------------------

    @rule()
    def request(self) -> None:
        """As ``Admission.ask``."""
        if self.life.record.takes_requests:
            self.happen(happens.LeaseTaken(comes=True))
        else:
            self._comes_too_early()

    def _comes_too_early(self) -> None:
        self.happen(happens.Asked())
        if isinstance(self.life.record.phase, Draining):
            self.happen(happens.CalledBack(is_waited_for=False))
        if self.life.record.takes_requests:
            self.happen(happens.LeaseTaken())
        elif obstacle(self.life.record, self.life.context.now) is None:
            self.happen(happens.WaitingChanged(self.life.record.use.waiting + 1))

    @precondition(lambda self: self.life.record.use.leases)
    @rule()
    def give_back(self) -> None:
        self.happen(happens.LeaseReturned())

    @precondition(lambda self: self.life.record.use.waiting)
    @rule()
    def give_up_waiting(self) -> None:
        self.happen(happens.WaitingChanged(self.life.record.use.waiting - 1))

    @rule()
    def find_gone(self) -> None:
        self.happen(happens.FoundGone("its process does not answer"))

    @rule(began=st.booleans(), pins=st.none() | st.booleans())
    def wish(self, began: bool, pins: bool | None) -> None:
        if pins is not None:
            self.happen(happens.Pinned(pins))
        elif began:
            self.happen(happens.UserLoadBegan())
        elif self.life.record.wish.user_loads:
            self.happen(happens.UserLoadEnded())

    @rule()
    def unload(self) -> None:
        if not isinstance(self.life.record.phase, AdapterFolder):
            self.happen(happens.UserUnloads())

    # -- what holds at each moment -----------------------------------------------------------------------------------

    @invariant()
    def all_memory_comes_back(self) -> None:
        record = self.life.record
        if not record.occupies and not self.stuck:
            assert record.memory.held == 0
        if record.occupies:
            assert record.memory.held > 0
        if record.reload is not None and record.serving is not None:
            assert record.memory.held >= record.reload.placement.footprint.bytes

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        record = self.life.record
        if record.use.waiting and not record.folder.gone:
            assert obstacle(record, self.life.context.now) is None
            assert not record.takes_requests, "who waits for what serves is answered"

    @invariant()
    def only_what_is_newer_is_loaded_beside_what_serves(self) -> None:
        record = self.life.record
        if record.reload_is_due_at is not None and record.serving is not None and record.folder.profile is not None:
            assert record.folder.profile.fingerprint != record.serving.profile.fingerprint

    @invariant()
    def counts_stay_counts(self) -> None:
        record = self.life.record
        assert record.use.leases >= 0 and record.wish.user_loads >= 0 and record.tries.excused <= record.tries.failures

    def teardown(self) -> None:
        """The folder is removed, and whatever is under way ends: nothing is left, and nobody still waits."""
        if not hasattr(self, "life"):
            return
        self.happen(happens.FolderGone())
        for _ in range(self.life.record.use.leases):
            self.happen(happens.LeaseReturned())
        for _ in range(8):
            for order in list(self.orders):
                end = happens.HasLoaded if isinstance(order, do.Load) else happens.HasUnloaded
                self.happen(end(number=order.number, seconds=1.0))
            self.life.context = replace(self.life.context, now=self.life.context.now + 100)
            self.happen(happens.PassEnds())
        while self.life.record.use.leases:  # of those who waited for the load
            self.happen(happens.LeaseReturned())
        record, effects = step(self.life.record, happens.PassEnds(), self.life.context)
        assert do.Forget() in effects, f"{record.key} is {record.state} for ever"
        assert self.stuck or not record.memory.held


AnyLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyLife = AnyLife.TestCase
