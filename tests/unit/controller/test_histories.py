"""Lives of models, told as events and read back as what was asked of the world: no loop, no server, no clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelium.brain.engine.devices import place_engine
from modelium.brain.engine.memory import IMPORTED_BYTES
from modelium.brain.runtimes.support import Ending
from modelium.controller.life import effects as do
from modelium.controller.life import events as happens
from modelium.controller.life.accidents import was_loading
from modelium.controller.life.effects import Reject
from modelium.controller.life.phases import AdapterFolder, Cause, Draining, Standing
from modelium.devices import Process
from modelium.errors import (
    FolderChanged,
    GivenUp,
    IllegalTransition,
    MachineTrouble,
    ModeliumError,
    OutOfMemory,
    RayUnavailable,
    TritonUnavailable,
)
from modelium.ledger import Facts as Remembered
from modelium.values import (
    Adapter,
    AdapterProfile,
    Demand,
    DeviceKind,
    EnginePlan,
    Incomplete,
    ModelOverride,
    Policies,
    Runtime,
    State,
    Unsupported,
    Verb,
)
from tests.unit.brain.languages import TINY
from tests.unit.brain.worlds import GIB, gpu, host, placed
from tests.unit.controller.histories import (
    ARRIVED,
    DRAIN_S,
    FIRST,
    HERE,
    NOW,
    PASS,
    SECOND,
    SEEN_AT_WORK,
    SERVES,
    STUB,
    Life,
    analyzed,
    candidate,
    decision,
    evict,
    failed,
    folder_found,
    kinds,
    load,
    loaded,
    read,
    reload,
    revised,
    seen,
    told,
    unloaded,
)

FOLDER = Path("/incoming/m")
POET = AdapterProfile(name="m", path=FOLDER, adapter=Adapter(name="poet", path=FOLDER, rank=8, base="org/llama"))
CUT = Incomplete(name="m", path=FOLDER, why="model.safetensors is cut")
BROKEN = Unsupported(name="m", path=FOLDER, why="its config is no JSON")
ON_RAY = placed(GIB, host(), Runtime.RAY)
ENGINE = EnginePlan(
    engine_args={},
    devices=("cuda:0",),
    max_model_len=1,
    max_num_seqs=1,
    weight_bytes=1,
    kv_bytes=1,
    kv_bytes_per_token=1,
    kv_tokens=1,
    activation_bytes=1,
    graph_bytes=1,
    overhead_bytes=1,
)
ON_GPU = replace(placed(GIB, gpu(), Runtime.VLLM), engine=ENGINE)


# -- a folder becomes a model, serves, and goes ----------------------------------------------------------------------


def test_a_dropped_folder_is_analyzed_loaded_and_answers_who_waited() -> None:
    life = told(seen())
    assert (life.state, life.asked) == (State.INCOMPLETE, ["analyze"])
    assert life.tell(analyzed(), revised()).asked == [] and life.state is State.UNLOADED
    life.tell(happens.Asked(), happens.WaitingChanged(1))
    assert life.record.demand is Demand.REQUEST
    assert life.tell(load()).asked == ["load 1 plain written"]
    assert (life.state, life.held) == (State.LOADING, GIB)
    assert life.tell(loaded(1)).asked == ["RememberLoad first", "Grant"]
    assert (life.state, life.want, life.record.past.loads) == (State.LOADED, Demand.NONE, 1)


def test_an_entry_that_is_as_it_was_is_not_written_again() -> None:
    life = told(*SERVES, evict(), PASS, unloaded(2))
    assert life.tell(load()).asked == ["load 3 plain"]
    assert life.tell(failed(3)).record.past.entry is None
    assert life.at(5).tell(load()).asked == ["load 4 plain written"]


def test_an_eviction_waits_for_the_last_lease_and_gives_the_memory_back() -> None:
    life = told(*SEEN_AT_WORK, happens.LeaseTaken(), evict(), PASS)
    assert (life.state, [each for each in life.asked if each.startswith("unload")]) == (State.DRAINING, [])
    assert life.tell(happens.LeaseReturned(), PASS).asked == ["StopWatching", "unload 2"]
    assert (life.state, life.held) == (State.UNLOADING, GIB // 2)
    assert life.tell(unloaded(2)).asked == ["RememberUnload first", "UnloadIsOver"]
    assert (life.state, life.held, life.record.past.unloads) == (State.UNLOADED, 0, 1)


def test_a_lease_that_is_not_given_back_holds_a_model_no_longer_than_its_time_to_drain() -> None:
    life = told(*SERVES, happens.LeaseTaken(), evict())
    assert life.at(DRAIN_S - 1).tell(PASS).asked == []
    assert life.at(DRAIN_S).tell(PASS).asked == ["StopWatching", "unload 2"]


def test_a_request_calls_back_what_only_policy_lets_go() -> None:
    life = told(*SERVES, evict(), happens.CalledBack(is_waited_for=False))
    assert life.state is State.LOADED
    assert told(*SERVES, happens.UserUnloads(), happens.CalledBack(is_waited_for=False)).state is State.DRAINING


def test_a_request_that_is_answered_at_once_is_counted_as_any_other() -> None:
    two, one = told(*SERVES, happens.Asked(), happens.LeaseTaken()), told(*SERVES, happens.LeaseTaken(comes=True))
    assert one.record == two.record and one.record.use.window.asked_at is not None


def test_a_turn_is_given_up_only_when_nobody_waits_for_it_any_more() -> None:
    life = told(*SERVES, happens.LeaseTaken(), evict("evict.7", "other"), happens.CalledBack(is_waited_for=True))
    assert life.tell(happens.PassEnds(is_waited_for=True)).state is State.DRAINING
    life.tell(happens.PassEnds(is_waited_for=False))
    assert (life.state, life.asked) == (State.LOADED, ["Grant"])


def test_nothing_is_unloaded_beside_an_engine_that_measures_the_device() -> None:
    life = told(*SERVES, evict(), happens.PassEnds(disturbs=True))
    assert life.state is State.DRAINING
    assert life.at(1).tell(PASS).asked == ["StopWatching", "unload 2"]


def test_a_user_who_unloads_what_loads_gets_it_out_when_it_is_loaded() -> None:
    life = told(*ARRIVED, load(), happens.UserUnloads())
    assert life.state is State.LOADING
    assert life.tell(loaded(1)).state is State.DRAINING
    assert life.tell(PASS, unloaded(2)).asked[-1] == "UnloadIsOver"
    assert life.record.wish.leave is False


@pytest.mark.parametrize("error", [FolderChanged("written to"), TritonUnavailable("refused"), MachineTrouble("full")])
def test_a_user_who_unloads_what_loads_and_fails_does_not_get_it_back(error: ModeliumError) -> None:
    life = told(*ARRIVED, load(), happens.UserUnloads(), failed(1, error))
    assert (life.want, life.asked[-1]) == (Demand.NONE, "UnloadIsOver")


def test_a_call_back_answers_who_waits_already() -> None:
    life = told(*SERVES, evict("evict.7", "other"), happens.WaitingChanged(1))
    assert life.tell(happens.CalledBack(is_waited_for=False)).asked == ["Grant"]


def test_a_removed_folder_takes_its_model_along_from_wherever_it_is() -> None:
    life = told(*SERVES, happens.FolderGone())
    assert (life.state, life.record.demand) == (State.DRAINING, Demand.NONE)
    assert life.tell(PASS).asked == ["StopWatching", "unload 2 and remove"]
    assert life.tell(unloaded(2), PASS).asked[-1] == "Forget"
    assert told(*ARRIVED, happens.FolderGone(), PASS).asked[-1] == "Forget"
    assert told(*ARRIVED, load(), happens.FolderGone(), loaded(1)).state is State.DRAINING
    gone = told(*ARRIVED, happens.FolderGone(), seen("s2"))
    assert gone.record.folder.candidate.signature == "s1", "it is found anew when it is gone"


def test_what_could_not_be_unloaded_keeps_its_memory_until_triton_is_another() -> None:
    life = told(*SERVES, evict(), PASS, happens.NotUnloaded(number=2, seconds=1.0, error=MachineTrouble("hangs")))
    assert (life.state, life.held, life.record.tries.retry_at) == (State.FAILED, GIB, None)
    assert life.asked[-1] == "UnloadIsOver"
    assert life.tell(happens.ServerLost(detail="killed")).held == 0


# -- loads that fail -------------------------------------------------------------------------------------------------


def test_failures_back_off_and_end_in_quarantine_until_the_folder_is_touched() -> None:
    life = told(*ARRIVED, load(), failed(1))
    assert (life.state, life.held, life.record.tries.retry_at) == (State.FAILED, 0, NOW + 1)
    assert life.asked[-2].startswith("reject: 'm' failed to load (next try in 1.0 s)")
    life.tell(load(), failed(2), load(), failed(3))
    assert life.record.tries.retry_at is None and "RememberQuarantine first" in life.asked
    assert life.want is Demand.NONE
    assert life.tell(seen("s1"), analyzed(), revised()).state is State.FAILED, "a look alone ends no quarantine"
    life.tell(seen("s2"), analyzed(signature="s2"), revised())
    assert (life.state, life.asked) == (State.UNLOADED, ["analyze soon", "LiftQuarantine first"])


def test_the_machines_trouble_is_tried_for_ever() -> None:
    life = told(*ARRIVED)
    for number in range(1, 9):
        life.tell(load(), failed(number, MachineTrouble("No space left on device")))
        assert life.record.tries.retry_at is not None
    assert (life.record.tries.retry_at or 0.0) <= NOW + 60
    life.tell(load(), failed(9), load(), failed(10))
    assert life.record.tries.retry_at is not None, "two failures of its own are left"


def test_want_of_memory_is_its_own_the_third_time_or_where_nobody_has_so_much() -> None:
    life = told(*ARRIVED)
    for number in (1, 2):
        life.tell(load(), failed(number, OutOfMemory("out of memory", 1)))
    assert life.record.tries.excused == 2
    assert life.tell(load(), failed(3, OutOfMemory("out of memory", 1))).record.tries.excused == 2
    assert told(*ARRIVED, load(), failed(1, OutOfMemory("out of memory", 65 * GIB))).record.tries.excused == 0


def test_a_larger_machine_elsewhere_does_not_excuse_a_model_that_asks_for_too_much_here() -> None:
    life = Life()
    life.context = replace(life.context, devices=(host(), replace(host(total=512 * GIB), id="far/host", node="far")))
    life.tell(*ARRIVED, load(), failed(1, OutOfMemory("out of memory", 65 * GIB)))
    assert life.record.tries.excused == 0


def test_a_triton_that_went_away_under_a_load_is_nobodys_failure() -> None:
    life = told(*ARRIVED, load(), failed(1, TritonUnavailable("connection refused")))
    assert (life.state, life.want, life.record.tries.failures) == (State.UNLOADED, Demand.RESTORE, 0)
    alone = life.tell(happens.ServerLost(detail="killed", alone=True))
    assert alone.record.tries.failures == 1 and alone.state is State.UNLOADED, "unless it was alone in loading"


def test_ray_that_went_away_under_a_load_is_the_models_failure_only_where_it_was_alone() -> None:
    began = (*ARRIVED, load(place=ON_RAY))
    down = replace(Life().context, ray_outages=1, ray_detail="its head died")
    life = told(*began)
    life.context = down
    assert life.tell(happens.RayLost(detail="its head died")).asked == ["EndProcesses"]
    assert life.tell(failed(1)).record.tries.failures == 0
    assert (life.state, life.want, life.record.phase.reason) == (State.FAILED, Demand.RESTORE, "Ray is down: its head died")
    life = told(*began)
    life.context = down
    assert life.tell(happens.RayLost(detail="x", alone=True), failed(1)).record.tries.failures == 1
    assert told(*began, failed(1, RayUnavailable("no head"))).record.tries.failures == 0


def test_a_process_that_triton_gave_up_is_started_again_and_who_waits_goes_on_waiting() -> None:
    life = told(*ARRIVED, happens.WaitingChanged(1), load(), failed(1, GivenUp("too busy")))
    assert (life.state, life.want, life.record.tries.retry_at) == (State.UNLOADED, Demand.RESTORE, NOW + 0.5)
    assert life.record.tries.failures == 0 and "Reject" not in life.asked and "analyze soon" not in life.asked


def test_a_folder_that_changes_under_a_load_is_looked_at_again_and_tried_ever_less_often() -> None:
    life = told(*ARRIVED, load(), failed(1, FolderChanged("written to")))
    assert (life.state, life.want, life.record.tries.retry_at) == (State.UNLOADED, Demand.RESTORE, NOW + 0.5)
    assert "analyze soon" in life.asked
    waits = []
    for number in (2, 3, 4):
        life.tell(analyzed(), load(), failed(number, FolderChanged("written to")))
        waits.append((life.record.tries.retry_at or 0) - NOW)
    assert waits == [1, 2, 4] and life.record.tries.failures == 0
    life.tell(happens.UserLoadBegan())
    assert (life.record.tries.retry_at, life.record.demand) == (0.0, Demand.USER), "who asks for it knows better"


def test_what_nothing_here_can_serve_is_refused_and_who_waits_is_told() -> None:
    refusal = happens.RefusalDecided(decision(Verb.REFUSE, "plan.1", "no runtime"))
    life = told(*ARRIVED, happens.WaitingChanged(1), refusal)
    assert (life.state, life.want, life.asked[-1]) == (
        State.UNSUPPORTED,
        Demand.NONE,
        "reject: 'm' cannot be served: no runtime",
    )
    waits = told(*ARRIVED, happens.WaitDecided(decision(Verb.WAIT, "plan.4", "no room")))
    assert (waits.state, waits.record.phase.reason) == (State.UNLOADED, "no room")


def test_a_refused_model_is_as_new_when_something_can_serve_it() -> None:
    """And one that was not refused stays as it is."""
    refusal = happens.RefusalDecided(decision(Verb.REFUSE, "runtime.6", "no runtime"))
    life = told(*ARRIVED, refusal, happens.RuntimeFound())
    before = told(*ARRIVED)
    assert (life.state, life.want) == (before.state, Demand.DISCOVERY) == (State.UNLOADED, Demand.DISCOVERY)
    assert told(*ARRIVED, happens.RuntimeFound()).record == before.record


def test_a_users_load_that_times_out_leaves_what_others_want_of_it() -> None:
    life = told(*SERVES, happens.ServerLost(detail="killed"), happens.UserLoadBegan())
    assert life.record.demand is Demand.USER
    assert life.tell(happens.UserLoadEnded()).record.demand is Demand.RESTORE


# -- revisions -------------------------------------------------------------------------------------------------------


def newer(life: Life) -> Life:
    return life.tell(seen("s2"), analyzed(SECOND, "s2"), revised(SECOND))


def test_a_newer_revision_loads_beside_the_one_that_serves_and_takes_its_place() -> None:
    life = newer(told(*SEEN_AT_WORK))
    assert life.record.reload_is_due_at == NOW
    assert life.tell(reload()).asked == ["load 2 beside written"]
    assert life.record.takes_requests and life.held == GIB // 2 + GIB
    life.tell(loaded(2))
    assert life.asked == ["StopWatching", "RememberLoad second", "Grant"]
    assert life.record.serving is not None and life.record.serving.profile == SECOND
    assert (life.held, life.record.memory.measured) == (GIB, None)


def test_a_revision_that_fails_leaves_the_old_one_and_is_not_tried_again_unasked() -> None:
    life = newer(told(*SERVES)).tell(reload(), failed(2))
    assert (life.state, life.held) == (State.LOADED, GIB)
    assert "the old one goes on serving" in life.record.revision_error
    assert life.record.reload_is_due_at is None
    life.tell(seen("s3"), analyzed(SECOND, "s3"), revised(SECOND))
    assert life.record.reload_is_due_at is not None, "its files were touched"


def test_the_end_of_an_earlier_load_is_history() -> None:
    life = newer(told(*SERVES)).tell(reload())
    known = life.record
    for late in (loaded(1), failed(1), unloaded(1), happens.ProcessDied(number=0, pid=77)):
        assert (life.tell(late).record, life.effects) == (known, [])


def test_the_processes_of_a_reload_that_failed_are_not_taken_for_those_that_serve() -> None:
    """They were in a reading that began during the reload; when they died the model was loaded anew, with that revision."""
    life = newer(told(*SERVES)).tell(reload(), failed(2))
    for began in (NOW - 1, NOW + 0.5):
        assert life.tell(read(STUB, started_at=began)).asked == []
    assert "Watch" in life.tell(read(STUB, started_at=NOW + 5)).asked


def test_a_revision_that_met_a_passing_trouble_is_tried_again_later() -> None:
    life = newer(told(*SERVES)).tell(reload(), failed(2, FolderChanged("written to")))
    assert life.record.reload_is_due_at == NOW + 0.5


def test_a_folder_that_is_again_what_serves_is_not_loaded_beside_itself() -> None:
    life = newer(told(*SERVES)).tell(reload(), failed(2, MachineTrouble("the disk is full")))
    assert life.record.reload_is_due_at is not None
    life.tell(seen("s1"), analyzed(FIRST, "s1"), revised(FIRST))
    assert life.record.reload_is_due_at is None


def test_a_reload_that_fails_by_itself_after_a_call_back_is_not_tried_again() -> None:
    life = newer(told(*SERVES)).tell(reload(), evict(), happens.CalledBack(is_waited_for=False), failed(2))
    assert life.record.reload_is_due_at is None


def test_without_room_for_both_the_old_revision_goes_first() -> None:
    life = newer(told(*SERVES)).tell(reload(place=None))
    assert isinstance(life.record.phase, Draining) and life.record.phase.leaving.cause is Cause.REVISION
    assert life.want is Demand.RESTORE


def test_a_revision_that_nothing_here_can_serve_says_so_and_the_old_one_goes_on() -> None:
    life = newer(told(*SERVES)).tell(happens.ReloadRefused("no runtime"))
    assert (life.state, life.record.revision_error) == (State.LOADED, "the new revision cannot be served: no runtime")


def test_an_unload_waits_for_the_reload_under_way() -> None:
    life = newer(told(*SERVES)).tell(reload(), happens.UserUnloads(), PASS)
    assert (life.state, [each for each in life.asked if each.startswith("unload")]) == (State.DRAINING, [])
    assert life.tell(loaded(2), PASS).asked[-1] == "unload 3"


def test_a_revision_that_came_while_it_drained_is_due_when_it_is_called_back() -> None:
    life = newer(told(*SERVES, evict()))
    assert life.record.reload_is_due_at is None
    assert life.tell(happens.CalledBack(is_waited_for=False)).record.reload_is_due_at == NOW


def test_a_folder_that_becomes_incomplete_or_unsupported_while_it_serves_takes_nothing_away() -> None:
    for found in (CUT, BROKEN):
        life = told(*SERVES, happens.Analyzed(signature="s2", analysis=found))
        assert life.record.takes_requests and life.record.revision_error


def test_who_waits_for_a_folder_that_turns_out_unusable_is_told() -> None:
    for found in (CUT, BROKEN, POET):
        life = told(seen(), happens.WaitingChanged(1), happens.Analyzed(signature="s1", analysis=found))
        assert [each for each in life.effects if isinstance(each, Reject)], found


# -- accidents -------------------------------------------------------------------------------------------------------


def test_a_process_that_died_is_replaced_beside_the_corpse() -> None:
    life = told(*SEEN_AT_WORK).at(100).tell(happens.ProcessDied(number=1, pid=77))
    assert life.asked == ["StopWatching", "load 2 after death"]
    assert (life.state, life.record.past.deaths) == (State.LOADING, 1)
    assert life.tell(loaded(2)).state is State.LOADED


def test_what_dies_again_and_again_is_put_into_quarantine() -> None:
    life = told(*SEEN_AT_WORK)
    for number in (1, 2):
        life.tell(happens.ProcessDied(number=number, pid=77), loaded(number + 1), read(STUB))
    life.tell(happens.ProcessDied(number=3, pid=77))
    assert (life.state, life.held, life.record.tries.retry_at) == (State.FAILED, 0, None)
    assert "Discard" in life.asked


def test_an_engine_on_an_accelerator_is_started_again_by_the_plan() -> None:
    life = told(*ARRIVED, load(place=ON_GPU), loaded(1), happens.ProcessDied(number=1, pid=77))
    assert (life.state, life.want, life.record.past.entry) == (State.DRAINING, Demand.RESTORE, None)
    assert life.tell(PASS).asked == ["StopWatching", "bury 2"]
    assert life.tell(unloaded(2)).state is State.UNLOADED
    assert ON_GPU.device_kind is DeviceKind.CUDA


def test_a_model_that_a_request_found_gone_gives_no_lease_until_it_was_looked_at() -> None:
    life = told(*SEEN_AT_WORK, happens.FoundGone("it is gone"))
    assert (life.asked[-1], life.record.takes_requests) == ("Check", False)
    life.tell(happens.Checked(number=1, serves=True))
    assert (life.asked, life.record.takes_requests) == (["Grant"], True)
    life.tell(happens.FoundGone("it is gone"))
    assert life.tell(happens.Checked(number=1, serves=False, died=True, detail="d")).state is State.LOADING


@pytest.mark.parametrize(
    "says", ["evict.7 died", "its process 7 died", "out of memory, CUDA", "folder was removed, ray is down"]
)
def test_no_word_of_tritons_decides_anything(says: str) -> None:
    """The same history with other words in each reason ends the same."""
    life = told(*SEEN_AT_WORK, happens.FoundGone(says), happens.Checked(number=1, serves=False, died=False, detail=says))
    assert (life.state, life.held) == (State.UNLOADED, 0)
    again = told(*SEEN_AT_WORK, read(STUB, in_triton="UNAVAILABLE", triton_says=says))
    assert (again.state, again.want) == (State.UNLOADED, Demand.NONE)
    words = told(*ARRIVED, load(), failed(1, ModeliumError(says)))
    assert (words.record.tries.failures, words.record.tries.excused) == (1, 0)
    drains = told(*SERVES, happens.UnloadDecided(decision(Verb.UNLOAD, "evict.5", says)))
    assert isinstance(drains.record.phase, Draining) and drains.record.phase.leaving.cause is Cause.POLICY


def test_what_triton_lost_is_restored_and_what_somebody_unloaded_is_not() -> None:
    assert told(*SEEN_AT_WORK, read(STUB, in_triton="")).want is Demand.RESTORE
    assert told(*SEEN_AT_WORK, read(STUB, in_triton="UNAVAILABLE")).want is Demand.NONE


def test_a_reading_that_began_before_the_load_says_nothing() -> None:
    life = told(*SERVES, read(STUB, started_at=NOW - 1, in_triton=""))
    assert life.record.takes_requests


def test_a_triton_that_dies_takes_all_and_brings_back_what_nobody_unloaded() -> None:
    life = told(*SEEN_AT_WORK, happens.ServerLost(detail="killed"))
    assert (life.state, life.want, life.held) == (State.UNLOADED, Demand.RESTORE, 0)
    leaving = told(*SERVES, evict(), PASS, happens.ServerLost(detail="killed"))
    assert (leaving.state, leaving.want) == (State.UNLOADED, Demand.NONE)
    assert leaving.tell(unloaded(2)).asked == [], "its unload is history"


def test_of_several_that_loaded_when_triton_died_each_is_tried_alone() -> None:
    retries = [told(*ARRIVED, load(), happens.ServerLost(detail="x", place=place)).record.tries.retry_at for place in range(3)]
    assert retries == [NOW, NOW + 5, NOW + 10]


def test_whose_process_died_with_triton_is_not_suspected_of_its_end() -> None:
    life = told(*SEEN_AT_WORK).at(100).tell(happens.ProcessDied(number=1, pid=77))
    assert (life.state, was_loading(life.record, NOW + 101)) == (State.LOADING, False)
    lost = life.tell(happens.ServerLost(detail="killed"))
    assert (lost.state, lost.want, lost.record.tries.retry_at) == (State.UNLOADED, Demand.RESTORE, 0.0)
    assert was_loading(told(*ARRIVED, load()).record, NOW)


def test_what_ray_served_is_buried_and_tried_again_when_ray_is_back() -> None:
    life = told(*ARRIVED, load(place=ON_RAY), loaded(1), happens.RayLost(detail="its head died"), PASS)
    assert life.asked[-1] == "bury 2"
    life.tell(unloaded(2))
    assert (life.state, life.want, life.record.tries.retry_at) == (State.FAILED, Demand.RESTORE, NOW)
    assert told(*SERVES, happens.RayLost(detail="x")).record.takes_requests, "what Triton serves is not Ray's"


def test_what_outgrew_its_memory_is_ended_at_once_and_counts_as_a_failure() -> None:
    life = told(*SEEN_AT_WORK, happens.LeaseTaken(), happens.Outgrew(rule="bound.1", reason="too much"), PASS)
    assert life.asked[-1] == "bury 2"
    life.tell(unloaded(2))
    assert (life.state, life.record.tries.failures, life.held) == (State.FAILED, 1, 0)


def test_what_triton_had_loaded_already_is_kept() -> None:
    life = told(*ARRIVED, happens.WaitingChanged(1), happens.FoundInTriton(profile=FIRST, placement=HERE))
    assert (life.state, life.held, life.asked) == (State.LOADED, GIB, ["analyze", "Grant"])
    assert told(*ARRIVED, happens.FoundInTriton()).want is Demand.RESTORE


def test_what_was_measured_in_one_manner_is_forgotten_in_none_and_used_in_no_other() -> None:
    life = told(*SEEN_AT_WORK)
    assert (life.record.memory.measured, life.record.memory.learned) == (GIB // 2, {HERE.manner: GIB // 2})
    twice = replace(HERE, instance_count=2)
    life.tell(evict(), PASS, unloaded(2), load(place=twice))
    assert (life.record.memory.measured, life.record.memory.learned) == (None, {HERE.manner: GIB // 2})
    life.tell(loaded(3), read(STUB, held=GIB))
    assert life.record.memory.learned == {HERE.manner: GIB // 2, twice.manner: GIB}
    life.tell(evict(), PASS, unloaded(4), load())
    assert life.record.memory.measured == GIB // 2


# -- restarts, adapters ----------------------------------------------------------------------------------------------


def test_what_was_loaded_before_a_restart_is_wanted_and_what_was_in_quarantine_stays_there() -> None:
    was = Remembered(loaded=True, measured_bytes=5, load_seconds=3.0)
    life = told(seen(), analyzed(), revised(remembered=was))
    assert (life.want, life.record.memory.measured, life.record.past.load_seconds) == (Demand.RESTORE, 5, 3.0)
    was = Remembered(quarantine="broken", quarantine_seal="s1")
    assert told(seen(), analyzed(), revised(remembered=was)).state is State.FAILED
    was = Remembered(quarantine="broken", quarantine_seal="s0")
    assert told(seen(), analyzed(), revised(remembered=was)).state is State.UNLOADED, "mended while Modelium was off"


def test_an_adapter_has_a_standing_of_its_own_and_becomes_a_model_again() -> None:
    life = told(seen(), happens.Analyzed(signature="s1", analysis=POET))
    assert isinstance(life.record.phase, AdapterFolder) and life.record.demand is Demand.NONE
    life.tell(happens.Attached(standing=Standing.ATTACHED, reason="served as llama:poet", base="llama"))
    assert life.state is State.UNLOADED
    life.tell(happens.Analyzed(signature="s1", analysis=CUT))
    assert isinstance(life.record.phase, AdapterFolder), "attached, it serves on while a copy is under way"
    assert life.tell(seen("s2"), analyzed(signature="s2"), revised()).want is Demand.DISCOVERY
    assert life.tell(load()).state is State.LOADING


def test_what_cannot_be_used_is_looked_at_again_when_the_folder_changes() -> None:
    life = told(seen(), happens.Unusable(words="a defect of Modelium", signature="s1"))
    assert (life.state, life.record.folder.analyzing) == (State.UNSUPPORTED, False)
    assert life.tell(seen()).asked == []
    assert life.tell(seen("s2")).asked == ["analyze"]


def test_an_adapter_whose_folder_loaded_when_triton_died_stays_an_adapter() -> None:
    life = told(*ARRIVED, load(), failed(1, TritonUnavailable("refused")))
    life.tell(seen("s2"), happens.Analyzed(signature="s2", analysis=POET), happens.ServerLost(detail="x", alone=True))
    assert isinstance(life.record.phase, AdapterFolder)


def test_a_conflict_of_names_is_said_and_nothing_is_analyzed() -> None:
    life = told(happens.FolderSeen(candidate=candidate(conflict="another folder has this name")))
    assert (life.state, life.asked) == (State.UNSUPPORTED, ["reject: 'm' is UNSUPPORTED: another folder has this name"])


def test_a_pin_is_a_wish_that_stays() -> None:
    life = told(*SERVES, happens.Pinned(pinned=True))
    assert life.record.demand is Demand.POLICY
    assert life.tell(happens.Pinned(pinned=False)).record.demand is Demand.NONE


# -- what cannot happen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (ARRIVED, happens.LeaseTaken()),
        (ARRIVED, evict()),
        (ARRIVED, reload()),
        (SERVES, load()),
        ((*ARRIVED, load()), load()),
        ((*SERVES, evict()), evict()),
        ((*SERVES, evict(), PASS), happens.LeaseTaken()),
        (SERVES, happens.CalledBack(is_waited_for=False)),
    ],
)
def test_what_is_not_in_the_table_raises_and_changes_nothing(
    before: tuple[happens.LifeEvent, ...], event: happens.LifeEvent
) -> None:
    life = told(*before)
    known = life.record
    with pytest.raises(IllegalTransition):
        life.tell(event)
    assert life.record is known


def test_the_beginning_knows_nothing_and_wants_what_it_was_given() -> None:
    life = Life(record=folder_found(want=Demand.DISCOVERY))
    assert (life.state, life.record.demand, life.held) == (State.INCOMPLETE, Demand.DISCOVERY, 0)
    assert not life.record.takes_requests and not life.record.occupies


# -- what is counted, and what wakes the loop ------------------------------------------------------------------------


def test_each_end_of_work_is_counted_and_a_load_is_measured() -> None:
    assert [kind for kind in kinds(told(*SERVES).effects) if kind in (do.CountLoad, do.CountUnload)] == [do.CountLoad]
    assert do.Measure in kinds(told(*ARRIVED, load()).tell(loaded(1)).effects)
    gone = told(*SERVES, evict(), PASS).tell(unloaded(2)).effects
    assert [effect for effect in gone if isinstance(effect, do.CountUnload)] == [do.CountUnload(rule="evict.5", seconds=0.5)]
    assert do.CountDecision in kinds(told(*SERVES).tell(evict()).effects)


def test_an_unload_that_had_to_kill_is_counted_as_one() -> None:
    end = happens.HasUnloaded(number=2, seconds=60.0, killed=True)
    gone = told(*SERVES, evict(), PASS, end).effects
    assert do.CountUnload(rule="evict.5", seconds=60.0, killed=True) in gone


@pytest.mark.parametrize(
    ("runtime", "ending"),
    [
        (Runtime.PYTHON, Ending.KILLED),
        (Runtime.ONNXRUNTIME, Ending.KILLED),
        (Runtime.VLLM, Ending.TOLD),
        (Runtime.RAY, Ending.BY_THEMSELVES),
    ],
)
def test_only_what_has_nothing_to_take_down_is_ended_without_a_word(runtime: Runtime, ending: Ending) -> None:
    life = told(*ARRIVED, load(place=placed(GIB, host(), runtime)), loaded(1), evict()).tell(PASS)
    assert [effect.ending for effect in life.effects if isinstance(effect, do.Unload)] == [ending]


def test_a_drain_wakes_the_loop_when_it_begins_and_when_the_last_lease_is_back() -> None:
    life = told(*SERVES, happens.LeaseTaken(), happens.LeaseTaken()).tell(evict())
    assert do.Wake in kinds(life.effects)
    back = happens.LeaseReturned(room_is_wanted=False)
    assert kinds(life.tell(back).effects) == set()
    assert kinds(life.tell(back).effects) == {do.Wake}


def test_a_request_that_holds_a_lease_wakes_the_loop_only_if_its_room_is_wanted() -> None:
    for is_wanted in (False, True):
        life = told(*SERVES, happens.LeaseTaken())
        assert (do.Wake in kinds(life.tell(happens.LeaseReturned(room_is_wanted=is_wanted)).effects)) is is_wanted


# -- what is remembered of earlier ones ------------------------------------------------------------------------------


def test_a_crash_while_the_folder_was_being_written_to_is_forgotten() -> None:
    life = told(*SEEN_AT_WORK, happens.ProcessDied(number=1, pid=STUB.pid))
    assert len(life.record.tries.crashes) == 1
    assert life.tell(failed(2, FolderChanged("written to"))).record.tries.crashes == ()


def test_a_user_who_loads_what_failed_begins_with_no_crash() -> None:
    life = told(*SEEN_AT_WORK, happens.ProcessDied(number=1, pid=STUB.pid), failed(2))
    assert life.state is State.FAILED and life.record.tries.crashes
    assert life.tell(happens.UserLoadBegan()).record.tries.crashes == ()


def test_what_is_in_doubt_is_not_called_back() -> None:
    life = told(*SEEN_AT_WORK, happens.FoundGone("no answer"), evict())
    assert life.tell(happens.CalledBack(is_waited_for=False)).state is State.DRAINING
    assert told(*SEEN_AT_WORK, evict(), happens.CalledBack(is_waited_for=False)).state is State.LOADED


def test_a_reading_during_a_reload_says_nothing_of_processes_and_memory() -> None:
    life = told(*SEEN_AT_WORK, seen("s2"), analyzed(SECOND, "s2"), revised(SECOND), reload())
    before = life.record
    life.tell(read(Process(pid=78, created_at=2), held=9 * GIB))
    assert (life.record.memory, life.record.phase) == (before.memory, before.phase)


def test_the_largest_measurement_is_kept() -> None:
    life = told(*SEEN_AT_WORK, read(STUB, held=3 * GIB), read(STUB, held=GIB))
    assert (life.record.memory.measured, life.record.memory.weighed, life.held) == (3 * GIB, GIB, 3 * GIB)


def test_nothing_is_learned_of_a_model_whose_nursery_died() -> None:
    """The pages that it shared are its own now: they are promised to it until it is loaded anew, and are no growth."""
    born = replace(HERE, born=True)
    life = told(*ARRIVED, load(place=born), loaded(1), read(STUB, held=GIB, born=True))
    known = life.record.memory
    life.tell(read(STUB, held=7 * GIB, born=True, orphaned=True))
    memory = life.record.memory
    assert (memory.weighed, memory.held) == (7 * GIB, 7 * GIB)
    assert (memory.measured, memory.learned) == (known.measured, known.learned)
    assert do.RememberMeasurement not in kinds(life.effects)
    life.tell(read(STUB, held=5 * GIB, born=True, orphaned=True))
    assert life.held == 5 * GIB
    life.tell(evict(), PASS, unloaded(2), load(place=replace(born, footprint=replace(born.footprint, measured_bytes=GIB))))
    assert life.held == GIB
    life.tell(loaded(3), read(STUB, held=GIB // 2, born=True))
    assert (life.held, life.record.memory.measured) == (GIB, GIB)


def test_an_orphan_that_was_never_weighed_before_is_promised_what_it_holds_and_its_estimate_stays() -> None:
    born = replace(HERE, born=True)
    life = told(*ARRIVED, load(place=born), loaded(1), read(STUB, held=7 * GIB, born=True, orphaned=True))
    memory = life.record.memory
    assert (memory.held, memory.measured, dict(memory.learned)) == (7 * GIB, None, {})


def test_an_orphan_on_a_gpu_is_weighed_as_ever() -> None:
    """A nursery shares nothing there."""
    life = told(*ARRIVED, load(place=placed(GIB, gpu(0))), loaded(1), read(STUB, held=3 * GIB, born=True, orphaned=True))
    assert life.record.memory.measured == 3 * GIB


def test_what_a_model_takes_is_learned_of_the_manner_in_which_it_was_really_loaded() -> None:
    """The nursery from which it was to be born did not listen yet when it was loaded first."""
    born = replace(HERE, born=True)
    life = told(*ARRIVED, load(place=born), loaded(1), read(STUB, held=2 * GIB, born=False))
    assert dict(life.record.memory.learned) == {HERE.manner: 2 * GIB}
    life.tell(evict(), PASS, unloaded(2), load(place=born), loaded(3), read(STUB, held=GIB, born=True))
    assert dict(life.record.memory.learned) == {HERE.manner: 2 * GIB, born.manner: GIB}
    assert life.record.memory.measured == GIB
    assert told(*SERVES, read(STUB, held=GIB)).record.memory.learned == {HERE.manner: GIB}


def test_an_engine_is_promised_its_imports_where_the_nursery_did_not_listen_yet() -> None:
    [born] = place_engine(TINY, [host()], ModelOverride(), Policies(), born=True)
    planned = born.footprint.bytes
    life = told(*ARRIVED, load(place=born), loaded(1))
    assert life.record.memory.held == planned
    life.tell(read(STUB, held=GIB // 2, born=False))
    assert life.record.memory.held == planned + IMPORTED_BYTES
    life.tell(evict(), PASS, unloaded(2), load(place=born), loaded(3), read(STUB, held=GIB // 8, born=True))
    assert life.record.memory.held == planned


def test_who_waits_for_what_is_found_in_quarantine_is_told_and_a_user_who_loads_it_may_know_better() -> None:
    was = Remembered(quarantine="broken", quarantine_seal="s1")
    life = told(happens.Asked(), happens.WaitingChanged(1), seen(), analyzed()).tell(revised(remembered=was))
    assert life.state is State.FAILED
    assert [what.partition(" until")[0] for what in life.asked] == ["reject: 'm' failed to load and is in quarantine"]
    life = told(happens.UserLoadBegan(), happens.WaitingChanged(1), seen(), analyzed()).tell(revised(remembered=was))
    assert (life.state, life.asked) == (State.UNLOADED, [])
