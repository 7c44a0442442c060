"""vLLM engines in the plan: where they go, when they start, whom they push out."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from modelium.brain.board import Board
from modelium.brain.engine.devices import place_engine
from modelium.brain.placement.candidates import options
from modelium.brain.placement.rooms import choose_batch_size, rooms_of
from modelium.brain.plan import explain, plan
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.values import (
    Capabilities,
    Decision,
    Demand,
    Device,
    Footprint,
    ModelOverride,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Plan,
    Policies,
    Runtime,
    State,
    Verb,
)
from tests.patience import work_s
from tests.unit.brain.languages import LLAMA_8B, LLAMA_70B, QWEN_HALF_B, TINY, accelerator
from tests.unit.brain.worlds import GIB, MIB, NOW, host, loaded, profile, wanted, world

_VLLM = Capabilities(backends=frozenset({"python", "onnxruntime", "vllm"}))
_UNKNOWN = Footprint(estimated_bytes=0)


def _wants(model: ModelProfile, demand: Demand = Demand.REQUEST, **changes: object) -> ModelView:
    return replace(wanted(model.name, demand=demand), profile=model, footprint=_UNKNOWN, **changes)  # type: ignore[arg-type]


def _world(*models: ModelView, devices: tuple[Device, ...], **changes: object) -> Observed:
    return world(*models, devices=devices, capabilities=_VLLM, **changes)


def _running(
    model: ModelProfile, devices: tuple[Device, ...], *, idle_s: float = 0.0, state: State = State.LOADED
) -> ModelView:
    """The model as the plan would have placed it on empty devices."""
    [decision] = plan(_world(_wants(model), devices=devices)).actions
    placement = decision.placement
    assert placement is not None
    size = placement.footprint.bytes
    return loaded(
        model.name, size, idle_s=idle_s, profile=model, placement=placement, state=state, footprint=placement.footprint
    )


def _only(made: Plan, name: str) -> Decision:
    [decision] = [each for each in made.decisions if each.model == name]
    return decision


def _placement(made: Plan, name: str) -> Placement:
    placement = _only(made, name).placement
    assert placement is not None
    return placement


def test_an_engine_is_placed_with_its_plan() -> None:
    made = plan(_world(_wants(QWEN_HALF_B), devices=(host(), accelerator())))
    placement = _placement(made, "qwen-0.5b")
    assert placement.runtime is Runtime.VLLM and placement.engine is not None
    assert placement.footprint == Footprint(estimated_bytes=placement.engine.total_bytes)
    assert (placement.max_batch_size, placement.instance_count, placement.devices) == (0, 1, ("cuda:0",))
    assert "planned, of them 2.4 GiB KV cache for 206,864 tokens" in placement.reason


def test_an_engine_on_the_second_of_equal_gpus_names_that_one() -> None:
    """Ray's replicas are pinned to what the plan names, and each of the others would share GPU 0 with the first."""
    placement = _placement(
        plan(_world(_wants(QWEN_HALF_B), devices=(accelerator(0, used=9 * GIB), accelerator(1)))), "qwen-0.5b"
    )
    assert placement.device_id == "cuda:1" and placement.gpus == (1,)
    placements = place_engine(QWEN_HALF_B, [accelerator(0), accelerator(1)], ModelOverride(), Policies())
    assert [(place.devices, place.gpus) for place in placements] == [(("cuda:0",), (0,)), (("cuda:1",), (1,))]


def test_a_tensor_parallel_engine_takes_its_bytes_on_each_device() -> None:
    devices = tuple(accelerator(i) for i in range(4))
    view = _running(LLAMA_70B, devices)
    rooms = rooms_of(devices, [view])
    assert [room.committed for room in rooms.values()] == [view.bytes_held] * 4
    waits = _only(plan(_world(replace(view, pinned=True), _wants(LLAMA_8B), devices=devices)), "llama-8b")
    assert waits.verb is Verb.WAIT and "nothing there may be evicted: llama-70b" in waits.reason


def test_several_engines_share_a_device_one_after_the_other() -> None:
    device = accelerator()
    names = ["a", "b", "c"]
    views = [_wants(replace(QWEN_HALF_B, name=name), demand_since=NOW - i) for i, name in enumerate(names)]
    loading: list[ModelView] = []
    for _ in names:
        made = plan(_world(*loading, *views, devices=(device,)))
        [action] = made.actions
        assert action.placement is not None
        [started] = [view for view in views if view.name == action.model]
        views.remove(started)
        waiting = [each for each in made.decisions if each.verb is Verb.WAIT]
        assert len(waiting) == len(views) and all("a vllm engine starts" in each.reason for each in waiting)
        loading.append(
            replace(started, state=State.LOADED, placement=action.placement, bytes_held=action.placement.footprint.bytes)
        )
    shares = [v.placement.engine.engine_args["gpu_memory_utilization"] for v in loading if v.placement and v.placement.engine]
    assert len(shares) == 3 and all(isinstance(share, float) and share < 0.07 for share in shares)


def test_nothing_else_starts_on_an_accelerator_while_an_engine_does_nor_an_engine_while_others_do() -> None:
    device = accelerator()
    engine = _running(QWEN_HALF_B, (device,), state=State.LOADING)
    other = _only(plan(_world(engine, wanted("bert"), devices=(device,))), "bert")
    assert (other.verb, other.rule) == (Verb.WAIT, "plan.3") and "a vllm engine starts on cuda:0" in other.reason

    bert = loaded("bert", device=device, state=State.LOADING)
    alone = _only(plan(_world(bert, _wants(QWEN_HALF_B), devices=(device,))), "qwen-0.5b")
    assert alone.verb is Verb.WAIT and "starts alone on cuda:0, where models are being loaded" in alone.reason
    leaving = loaded("bert", device=device, state=State.UNLOADING)
    assert "being unloaded" in _only(plan(_world(leaving, _wants(QWEN_HALF_B), devices=(device,))), "qwen-0.5b").reason


def test_an_engine_that_waits_for_its_turn_is_not_overtaken_for_ever() -> None:
    device = accelerator()
    bert = loaded("bert", device=device, state=State.LOADING)
    first = _wants(QWEN_HALF_B, demand_since=NOW - 20)
    made = plan(_world(bert, first, wanted("later", demand_since=NOW - 1), devices=(device,)))
    assert made.actions == () and "waits to start alone" in _only(made, "later").reason


def test_on_the_host_others_start_beside_an_engine_but_not_a_second_engine() -> None:
    device = host(budget=20 * GIB)
    engine = _running(TINY, (device,), state=State.LOADING)
    made = plan(_world(engine, wanted("bert"), _wants(replace(TINY, name="tiny2")), devices=(device,)))
    assert [action.model for action in made.actions] == ["bert"]
    assert "already" in _only(made, "tiny2").reason or "a vllm engine starts on host" in _only(made, "tiny2").reason


def test_an_engine_takes_less_cache_rather_than_push_somebody_out() -> None:
    device = accelerator(gib=24)
    idle = loaded("idle", 19 * GIB, device=device, idle_s=400)
    made = plan(_world(idle, _wants(QWEN_HALF_B), devices=(device,)))
    placement = _placement(made, "qwen-0.5b")
    assert placement.engine is not None and 32_768 <= placement.engine.kv_tokens < 4 * 32_768
    assert placement.engine.max_model_len == 32_768
    assert placement.footprint.bytes <= device.budget_bytes - idle.bytes_held
    assert [each.verb for each in made.actions] == [Verb.LOAD]


@pytest.mark.parametrize(("demand", "verdicts"), [(Demand.REQUEST, ["wait", "unload"]), (Demand.DISCOVERY, ["wait"])])
def test_only_a_request_pushes_out_for_the_one_request_it_needs(demand: Demand, verdicts: list[str]) -> None:
    device = accelerator(gib=24)
    small, large = (
        loaded(name, size, device=device, idle_s=400) for name, size in (("small", 1843 * MIB), ("large", 18 * GIB))
    )
    made = plan(_world(small, large, _wants(QWEN_HALF_B, demand), devices=(device,)))
    assert sorted(each.verb.value for each in made.decisions) == sorted(verdicts)
    full = _placement(plan(_world(_wants(QWEN_HALF_B), devices=(device,))), "qwen-0.5b").footprint.bytes
    assert f"{full / GIB:.1f} GiB" not in _only(made, "qwen-0.5b").reason, "what it needs is the smallest plan"


def test_room_is_made_on_the_device_where_it_can_be_made() -> None:
    devices = (accelerator(0, gib=24), accelerator(1, gib=24))
    busy = loaded("busy", 18 * GIB, device=devices[0])
    idle = loaded("idle", 19 * GIB, device=devices[1], idle_s=400)
    by_hand = {"llama-8b": ModelOverride(engine_args={"max_model_len": 8192})}
    made = plan(_world(busy, idle, _wants(LLAMA_8B), devices=devices, overrides=by_hand))
    assert [action.model for action in made.actions] == ["idle"]
    assert set(made.pressure) == {"cuda:1"}


def test_nobody_is_unloaded_while_an_engine_measures_the_device() -> None:
    device = accelerator(gib=24)
    engine = _running(QWEN_HALF_B, (device,), state=State.LOADING)
    overdue = loaded("overdue", GIB, device=device, idle_s=10_000)
    to_the_letter = Policies(unload_without_pressure=True)
    assert plan(_world(engine, overdue, devices=(device,), policies=to_the_letter)).actions == ()
    assert [a.model for a in plan(_world(overdue, devices=(device,), policies=to_the_letter)).actions] == ["overdue"]
    needs = wanted("needs", 19 * GIB)
    waits = _only(plan(_world(engine, overdue, needs, devices=(device,))), "needs")
    assert waits.verb is Verb.WAIT


def test_an_evicted_tensor_parallel_engine_gives_back_on_every_device() -> None:
    devices = (accelerator(0), accelerator(1), accelerator(2), accelerator(3))
    idle = _running(LLAMA_70B, devices, idle_s=400)
    made = plan(_world(idle, _wants(replace(LLAMA_70B, name="other")), devices=devices))
    assert {(d.model, d.verb.value) for d in made.decisions} == {("llama-70b", "unload"), ("other", "wait")}
    assert set(made.pressure) == {"cuda:0", "cuda:1", "cuda:2", "cuda:3"}


def test_engines_of_unequal_devices_are_not_spread_over_them() -> None:
    refused = _only(plan(_world(_wants(LLAMA_70B), devices=(accelerator(0, gib=80), accelerator(1, gib=141)))), "llama-70b")
    assert refused.verb is Verb.REFUSE and "too big for this machine: needs" in refused.reason
    assert "on cuda:1" in refused.reason, "the device that lacks the fewest bytes"


def test_too_big_is_said_with_what_would_help() -> None:
    policies = Policies(fit_context=False)
    board = Board.of(_world(_wants(LLAMA_8B), devices=(accelerator(gib=24),), policies=policies))
    decision = explain(board, NOW, "llama-8b")
    assert decision is not None and (decision.verb, decision.rule) == (Verb.REFUSE, "plan.2")
    assert "max_model_len: " in decision.reason and "GiB short" in decision.reason
    by_hand = {"llama-8b": ModelOverride(engine_args={"max_model_len": 16_384})}
    fits = explain(Board.of(_world(_wants(LLAMA_8B), devices=(accelerator(gib=24),), overrides=by_hand)), NOW, "llama-8b")
    assert fits is not None and fits.verb is Verb.LOAD


def test_the_decision_says_that_the_context_is_shorter() -> None:
    decision = explain(Board.of(_world(_wants(LLAMA_8B), devices=(accelerator(gib=24),))), NOW, "llama-8b")
    assert decision is not None and decision.verb is Verb.LOAD and decision.placement is not None
    engine = decision.placement.engine
    assert engine is not None and f"context {engine.max_model_len:,} of 131,072: what fits on cuda:0" in decision.reason


def test_a_shortened_engine_makes_room_for_a_small_neighbour_that_is_there_already() -> None:
    device = accelerator(gib=24)
    idle = loaded("idle", GIB, device=device, idle_s=400)
    made = plan(_world(idle, _wants(LLAMA_8B), devices=(device,)))
    assert [each.verb for each in made.actions] == [Verb.LOAD]
    alone = _placement(plan(_world(_wants(LLAMA_8B), devices=(device,))), "llama-8b")
    beside = _placement(made, "llama-8b")
    assert alone.engine is not None and beside.engine is not None
    assert alone.engine.max_model_len // 2 <= beside.engine.max_model_len < alone.engine.max_model_len


def test_a_share_by_hand_that_no_device_can_ever_give_is_refused_rather_than_waited_for() -> None:
    device = replace(accelerator(), budget_bytes=72 * GIB)
    for share, verb in ((0.9, Verb.LOAD), (0.91, Verb.REFUSE)):
        overrides = {"llama-8b": ModelOverride(engine_args={"gpu_memory_utilization": share})}
        decision = _only(plan(_world(_wants(LLAMA_8B), devices=(device,), overrides=overrides)), "llama-8b")
        assert decision.verb is verb, decision.reason
    assert decision.rule == "plan.2" and decision.reason.startswith("engine_args say gpu_memory_utilization 0.91")
    overrides = {"llama-8b": ModelOverride(memory_bytes=73 * GIB)}
    decision = _only(plan(_world(_wants(LLAMA_8B), devices=(device,), overrides=overrides)), "llama-8b")
    assert decision.verb is Verb.REFUSE and decision.reason.startswith("memory says 73.0 GiB, 1.0 GiB more than cuda:0 has")


def test_a_model_that_brings_out_a_defect_is_refused_and_the_others_are_planned() -> None:
    assert TINY.language is not None
    broken = replace(TINY, name="broken", language=replace(TINY.language, hidden_size="a text"))  # type: ignore[arg-type]
    made = plan(_world(_wants(broken, demand_since=NOW - 9), _wants(TINY), devices=(host(),)))
    refused = _only(made, "broken")
    assert (refused.verb, refused.rule) == (Verb.REFUSE, "plan.0") and "a defect of Modelium: TypeError" in refused.reason
    assert _only(made, "tiny").verb is Verb.LOAD


def test_a_device_and_a_number_of_devices_chosen_by_hand() -> None:
    devices = (accelerator(0), accelerator(1))
    overrides = {"qwen-0.5b": ModelOverride(device="cuda:1")}
    assert _placement(plan(_world(_wants(QWEN_HALF_B), devices=devices, overrides=overrides)), "qwen-0.5b").devices == (
        "cuda:1",
    )
    overrides = {"qwen-0.5b": ModelOverride(engine_args={"tensor_parallel_size": 2})}
    both = _placement(plan(_world(_wants(QWEN_HALF_B), devices=devices, overrides=overrides)), "qwen-0.5b")
    assert both.devices == ("cuda:0", "cuda:1")


def test_what_an_engine_was_seen_to_hold_does_not_shrink_its_next_plan() -> None:
    seen = _wants(TINY, demand_since=NOW - 2)
    seen = replace(seen, footprint=Footprint(estimated_bytes=0, measured_bytes=100 * MIB))
    placement = _placement(plan(_world(seen, devices=(host(),))), "tiny")
    assert placement.footprint.bytes > GIB


def test_memory_by_hand_is_kept_free_for_an_engine() -> None:
    overrides = {"tiny": ModelOverride(memory_bytes=4 * GIB)}
    placement = _placement(plan(_world(_wants(TINY), devices=(host(),), overrides=overrides)), "tiny")
    assert placement.footprint.bytes == 4 * GIB and placement.engine is not None
    assert placement.engine.total_bytes <= 4 * GIB


def test_vllm_batches_by_itself() -> None:
    assert choose_batch_size(TINY, ModelOverride(max_batch_size=8), engine=True) == 0
    assert choose_batch_size(profile(), ModelOverride()) == 32


def test_two_hundred_requests_for_different_models_do_not_hold_up_a_pass() -> None:
    views = [_wants(replace(LLAMA_8B, name=f"m{i}")) for i in range(200)]
    observed = _world(*views, devices=(accelerator(),))
    started = time.process_time()
    made = plan(observed)
    assert time.process_time() - started < 30 * work_s()
    assert [each.verb for each in made.decisions].count(Verb.WAIT) == 199


def test_two_thousand_unloaded_folders_do_not_hold_up_a_pass() -> None:
    device = host(budget=20 * GIB)
    choice = RuntimeChoice(runtime=Runtime.VLLM, rule="", reason="")
    smallest = options(_wants(TINY), TINY, choice, rooms_of((device,), ()).values(), ModelOverride(), Policies())
    size = smallest[0][1].footprint.bytes
    waiting = [
        replace(_wants(replace(TINY, name=f"m{i}"), Demand.DISCOVERY), footprint=Footprint(estimated_bytes=size))
        for i in range(2000)
    ]
    running = loaded("busy", 19 * GIB, device=device)
    for models in ([*waiting], [running, *waiting]):
        observed = _world(*models, devices=(device,))
        started = time.process_time()
        made = plan(observed)
        assert time.process_time() - started < 60 * work_s()
        assert len(made.decisions) < 40
