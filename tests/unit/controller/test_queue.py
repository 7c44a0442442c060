"""Who waits for a model, and who is next: the queue by itself, and under a model that comes, goes, dies and fails."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelium.controller.admission import Admission
from modelium.controller.events import Wake
from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.phases import Absent, Draining, Loaded, Loading, Unloading
from modelium.controller.life.record import Record
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.queue import Bounds, Line, Queue
from modelium.controller.state import ControllerState
from modelium.errors import DeadlineExceeded, KeyQueueFull, ModeliumError, QueueFull
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.metrics.families import KEY_WAITS, QUEUE_SECONDS
from modelium.values import Asker, Priority, State
from tests.unit.controller.histories import ARRIVED, CONTEXT, SERVES, evict, failed, folder_found, load, loaded, unloaded
from tests.unit.controller.test_models import Exhausted

KEYS = ("", "ana", "ci")


class Waiting:
    """A request that waits."""

    def __init__(self, number: int, asker: Asker) -> None:
        self.number = number
        self.asker = asker
        self.lease: Lease | None = None
        self.error: BaseException | None = None
        self.gone = False

    def done(self) -> bool:
        return self.gone or self.lease is not None or self.error is not None

    def set_result(self, lease: Lease, /) -> None:
        assert not self.done()
        self.lease = lease

    def set_exception(self, error: BaseException, /) -> None:
        assert not self.done()
        self.error = error

    @property
    def place(self) -> tuple[int, int]:
        return self.asker.priority, self.number


def models_of(bounds: Bounds, posted: list[object] | None = None, recorder: Recorder | None = None) -> Models:
    ports = Exhausted()
    return Models(
        ports,
        ports,
        ledger=Ledger(Path("/nowhere")),
        recorder=recorder or Recorder(),
        context=lambda: CONTEXT,
        post=(posted if posted is not None else []).append,
        state=ControllerState(),
        bounds=bounds,
    )


def tell(models: Models, *events: happens.LifeEvent) -> Model:
    model = models.get("m") or models.add(folder_found())
    for event in events:
        models.apply(model, event)
    return model


# -- whatever happens ------------------------------------------------------------------------------------------------


class AnyQueue(RuleBasedStateMachine):
    """Requests come, end and give up while a model loads, leaves, dies and fails. Everybody is answered in order, or waits."""

    @initialize(
        per_model=st.none() | st.integers(1, 4),
        per_key=st.none() | st.integers(1, 3),
        waiting=st.integers(1, 6),
        in_flight=st.none() | st.integers(1, 3),
    )
    def begin(self, per_model: int | None, per_key: int | None, waiting: int, in_flight: int | None) -> None:
        limits = {} if in_flight is None else {"m": in_flight}
        self.bounds = Bounds(waiting=waiting, per_model=per_model, per_key=per_key, in_flight=limits)
        self.models = models_of(self.bounds)
        self.model = tell(self.models, *ARRIVED)
        self.admission = Admission(self.models)
        self.numbers = itertools.count()
        self.asked: list[Waiting] = []  # who has to wait and is not answered yet
        self.gone: list[Waiting] = []  # whose clients are gone, and who have not left yet
        self.leases: list[Lease] = []

    @property
    def record(self) -> Record:
        return self.model.record

    def happen(self, event: happens.LifeEvent) -> None:
        self.models.apply(self.model, event)
        self.see_who_was_answered()

    def see_who_was_answered(self) -> None:
        granted = [each for each in self.asked if each.lease is not None]
        still = [each for each in self.asked if not each.done()]
        for one in granted:
            assert one.lease is not None
            self.leases.append(one.lease)
            assert all(one.place < other.place for other in still), "somebody was passed"
        self.asked = still

    @property
    def is_full(self) -> bool:
        """Asked after a request came, and before it joins: one that calls a model back lets others in first."""
        bounds, line = self.bounds, self.model.line
        return self.models.requests.queue.waiting >= bounds.waiting or (
            bounds.per_model is not None and len(line) >= bounds.per_model
        )

    def too_many(self, key: str) -> bool:
        """The same of those with one key."""
        most = self.bounds.per_key
        return bool(key) and most is not None and self.models.requests.queue.by_key.get(key, 0) >= most

    # -- requests ----------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), priority=st.sampled_from(Priority))
    def request(self, key: str, priority: Priority) -> None:
        asker = Asker(key, priority)
        try:
            lease = self.admission.ask(self.model, CONTEXT.now, asker)
        except KeyQueueFull:
            assert self.too_many(key)
        except QueueFull:
            assert self.is_full
        except ModeliumError:
            assert isinstance(self.record.phase, Absent) and self.record.state is State.FAILED
        else:
            self.see_who_was_answered()  # by a model that this request called back, before it joins the line itself
            if lease is not None:
                self.leases.append(lease)
            else:
                assert not self.is_full and not self.too_many(key)
                one = Waiting(next(self.numbers), asker)
                self.asked.append(one)
                self.models.requests.join(self.model, one, asker)
        self.see_who_was_answered()

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 100))
    def give_up(self, which: int) -> None:
        one = self.asked.pop(which % len(self.asked))
        one.gone = True
        self.models.requests.leave(self.model, one)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 100))
    def be_gone_without_a_word(self, which: int) -> None:
        """A task that was cancelled, and has not run since: it leaves a little later."""
        one = self.asked.pop(which % len(self.asked))
        one.gone = True
        self.gone.append(one)

    @precondition(lambda self: self.gone)
    @rule()
    def leave_late(self) -> None:
        self.models.requests.leave(self.model, self.gone.pop())

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        self.leases.pop(which % len(self.leases)).release()
        self.see_who_was_answered()

    # -- the model ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: isinstance(self.record.phase, Absent) and self.record.state in (State.UNLOADED, State.FAILED))
    @rule()
    def load(self) -> None:
        self.happen(load())

    @precondition(lambda self: isinstance(self.record.phase, Loading))
    @rule(well=st.integers(0, 5))
    def end_load(self, well: int) -> None:
        number = self.record.past.numbered
        self.happen(loaded(number) if well else failed(number))

    @precondition(lambda self: isinstance(self.record.phase, Loaded))
    @rule(rule=st.sampled_from(["evict.5", "evict.7"]))
    def leave(self, rule: str) -> None:
        self.happen(evict(rule, "other"))

    @rule(is_waited_for=st.booleans())
    def end_pass(self, is_waited_for: bool) -> None:
        self.happen(happens.PassEnds(is_waited_for=is_waited_for))

    @precondition(lambda self: isinstance(self.record.phase, Unloading))
    @rule()
    def end_unload(self) -> None:
        self.happen(unloaded(self.record.past.numbered))

    @precondition(lambda self: isinstance(self.record.phase, Loaded))
    @rule(what=st.sampled_from(["died", "doubted", "serves", "unloaded by a user"]))
    def trouble(self, what: str) -> None:
        phase = self.record.phase
        assert isinstance(phase, Loaded)
        match what:
            case "died":
                self.happen(happens.ProcessDied(number=phase.serving.number, pid=77))
            case "doubted":
                self.happen(happens.FoundGone("it does not answer"))
            case "serves":
                self.happen(happens.Checked(number=phase.serving.number, serves=True, died=False, detail="looked"))
            case _:
                self.happen(happens.UserUnloads())

    # -- what holds at each moment -----------------------------------------------------------------------------------

    @invariant()
    def nobody_is_lost(self) -> None:
        if not hasattr(self, "model"):
            return
        queue, line = self.models.requests.queue, self.model.line
        assert [each for each in line if not each.done()] == sorted(self.asked, key=lambda each: each.place)
        assert queue.waiting == len(line) == self.record.use.waiting
        counts = {key: sum(each.asker.key == key for each in line if isinstance(each, Waiting)) for key in KEYS if key}
        assert queue.by_key == {key: count for key, count in counts.items() if count}

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        if not hasattr(self, "model"):
            return
        limit = self.model.max_in_flight
        assert self.record.use.leases == len(self.leases)
        assert limit is None or len(self.leases) <= limit
        if self.model.line and self.record.takes_requests:
            assert limit is not None and len(self.leases) == limit

    @invariant()
    def the_bounds_hold(self) -> None:
        if not hasattr(self, "model"):
            return
        queue = self.models.requests.queue
        assert queue.waiting <= self.bounds.waiting
        assert self.bounds.per_model is None or len(self.model.line) <= self.bounds.per_model
        assert self.bounds.per_key is None or all(count <= self.bounds.per_key for count in queue.by_key.values())

    def teardown(self) -> None:
        """What is under way ends, and the model is loaded: nobody waits any more."""
        if not hasattr(self, "model"):
            return
        for one in self.gone:
            self.models.requests.leave(self.model, one)
        for _ in range(20):
            while self.leases:
                self.leases.pop().release()
                self.see_who_was_answered()
            phase = self.record.phase
            match phase:
                case Loading():
                    self.happen(loaded(self.record.past.numbered))
                case Draining():
                    self.happen(happens.PassEnds())
                case Unloading():
                    self.happen(unloaded(phase.number))
                case Loaded() if phase.doubted:
                    number = phase.serving.number
                    self.happen(happens.Checked(number=number, serves=True, died=False, detail="looked"))
                case Absent() if self.asked:
                    self.happen(load())
                case _:
                    pass
        assert not self.asked and not self.model.line and self.models.requests.queue.waiting == 0
        assert self.record.use.leases == self.record.use.waiting == 0


AnyQueue.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyQueue = AnyQueue.TestCase


# -- in words --------------------------------------------------------------------------------------------------------


def test_the_more_urgent_goes_first_and_of_equals_who_came_first() -> None:
    queue, line = Queue(Bounds()), Line()
    order = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH, Priority.LOW]
    for number, priority in enumerate(order):
        queue.join(line, Waiting(number, Asker("", priority)), Asker("", priority))
    assert [each.number for each in queue.take(line, 3) if isinstance(each, Waiting)] == [2, 4, 1]
    assert [each.number for each in queue.take(line) if isinstance(each, Waiting)] == [3, 0, 5]


def test_one_key_does_not_fill_the_queue_for_all() -> None:
    models = models_of(Bounds(waiting=4, per_key=2))
    model = tell(models, *ARRIVED)
    admission = Admission(models)
    for number in range(2):
        assert admission.ask(model, CONTEXT.now, Asker("ana")) is None
        models.requests.join(model, Waiting(number, Asker("ana")), Asker("ana"))
    with pytest.raises(KeyQueueFull, match=r"2 requests with this API key wait already .*max_waiting_per_key = 2"):
        admission.ask(model, CONTEXT.now, Asker("ana"))
    assert admission.ask(model, CONTEXT.now, Asker("ci")) is None


@pytest.mark.parametrize(
    ("bounds", "of_model", "of_any", "expected"),
    [
        (Bounds(per_model=1), 12.5, 3.0, 12.5),
        (Bounds(waiting=1), 12.5, 3.0, 3.0),
        (Bounds(per_key=1), 12.5, 3.0, 3.0),
        (Bounds(per_model=1), 0.0, 3.0, 1.0),
        (Bounds(per_model=1), 500.0, 3.0, 30.0),
        (Bounds(per_model=1), None, 3.0, 5.0),
    ],
)
def test_who_is_turned_away_is_told_when_a_load_lets_some_of_the_queue_go(
    bounds: Bounds, of_model: float | None, of_any: float | None, expected: float
) -> None:
    """Within reason, and five seconds where nobody knows."""
    models = models_of(bounds)
    model = tell(models, *ARRIVED)
    admission = Admission(models, lambda key: of_model if key == "m" else of_any)
    assert admission.ask(model, CONTEXT.now, Asker("ana")) is None
    models.requests.join(model, Waiting(0, Asker("ana")), Asker("ana"))
    with pytest.raises(QueueFull) as caught:
        admission.ask(model, CONTEXT.now, Asker("ana"))
    assert caught.value.retry_after_s == expected


def test_requests_beyond_max_in_flight_wait_while_it_is_loaded() -> None:
    models = models_of(Bounds(in_flight={"m": 1}))
    model = tell(models, *SERVES)
    first = models.requests.grant(model, comes=True)
    admission = Admission(models)
    assert admission.ask(model, CONTEXT.now) is None
    second, third = (Waiting(number, Asker()) for number in range(2))
    for one in (second, third):
        models.requests.join(model, one)
    assert not model.record.demand and model.record.use.waiting == 2, "who waits for a lease wants no load"
    load_by_user = admission.ask(model, CONTEXT.now, sends=False)
    assert load_by_user is not None, "a user's load of what is loaded has nothing to wait for"
    load_by_user.release()
    assert not second.done()
    first.release()
    assert second.done() and not third.done()
    assert isinstance(second.lease, Lease)
    second.lease.release()
    assert third.done()


def test_who_waits_for_a_lease_waits_for_a_load_from_the_moment_that_it_leaves() -> None:
    models = models_of(Bounds(in_flight={"m": 1}))
    model = tell(models, *SERVES)
    lease = models.requests.grant(model, comes=True)
    one = Waiting(0, Asker())
    models.requests.join(model, one)
    tell(models, evict("evict.7", "other"))
    assert model.record.waits_for_load == 1 and model.record.wish.since == CONTEXT.now
    lease.release()
    assert one.lease is None, "a model whose room is another's turn takes nobody new"
    tell(models, happens.PassEnds(is_waited_for=True), unloaded(2), load(), loaded(3))
    assert one.lease is not None


def test_a_load_that_nobody_waits_for_any_more_is_not_begun() -> None:
    posted: list[object] = []
    models = models_of(Bounds(), posted)
    model = tell(models, *ARRIVED, load(), loaded(1), happens.UserUnloads(), happens.PassEnds(), unloaded(2))
    one = Waiting(0, Asker())
    models.requests.join(model, one)
    assert model.record.demand
    posted.clear()
    models.requests.leave(model, one)
    assert not model.record.demand and posted == [Wake()], "whoever waits for the same room may have it now"


async def test_who_waits_too_long_for_a_lease_is_told_why() -> None:
    recorder = Recorder()
    models = models_of(Bounds(in_flight={"m": 1}), recorder=recorder)
    model = tell(models, *SERVES)
    models.requests.grant(model, comes=True)
    with pytest.raises(DeadlineExceeded, match=r"'m' was not free within 0.0 s: it answers 1 requests at a time"):
        await models.requests.wait(model, 0.0, Asker("ana"))
    assert not model.line and model.record.use.waiting == 0
    assert recorder.counted(KEY_WAITS) == [(("ana",), 1)]
    assert [labels for labels, _ in recorder.observed(QUEUE_SECONDS)] == [("m",)]


async def test_a_lease_that_comes_as_its_client_goes_is_the_next_ones() -> None:
    models = models_of(Bounds(in_flight={"m": 1}))
    model = tell(models, *SERVES)
    lease = models.requests.grant(model, comes=True)
    waits = [asyncio.create_task(models.requests.wait(model, 600)) for _ in range(2)]
    await asyncio.sleep(0)
    lease.release()  # the first one's, who goes in the same turn
    waits[0].cancel()
    with await waits[1] as second:
        assert not second.cold and model.record.use.leases == 1
    assert model.record.use.leases == 0
