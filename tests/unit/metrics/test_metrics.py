"""Metrics: every scrape parses, has the documented names and labels only, forgets removed models, and stays cheap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from modelium.metrics import FAMILIES, Recorder, collect, reference
from modelium.metrics.families import AGE_BUCKETS, REQUESTS
from modelium.metrics.recorder import Histogram
from modelium.values import (
    Device,
    DeviceKind,
    Fleet,
    Footprint,
    ModelStatus,
    NurseryStatus,
    Placement,
    Ray,
    RayState,
    Runtime,
    ServerStatus,
    Snapshot,
    State,
    WatchDirectory,
)
from tests.patience import cpu_s, work_s

ROOT = Path(__file__).parents[3]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def status(name: str, state: State = State.LOADED, *, waiting: int = 0, revision_error: str = "") -> ModelStatus:
    footprint = Footprint(estimated_bytes=1000, measured_bytes=900 if state is State.LOADED else None)
    placement = Placement(
        runtime=Runtime.PYTHON,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=footprint,
        max_batch_size=8,
    )
    return ModelStatus(
        name=name,
        label=name,
        path=Path(name),
        state=state,
        reason="",
        placement=placement,
        footprint=footprint,
        promised_bytes=950 if state is State.LOADED else 0,
        held_bytes=800 if state is State.LOADED else None,
        idle_s=2.5 if state is State.LOADED else None,
        waiting=waiting,
        revision_error=revision_error,
    )


def snapshot(*models: ModelStatus) -> Snapshot:
    device = Device(
        id="host", kind=DeviceKind.HOST, index=-1, name="", total_bytes=100, used_bytes=50, budget_bytes=75, leaked_bytes=5
    )
    server = ServerStatus(up=True, version="2.51.0")
    fleet = Fleet(devices=(device,), ray=Ray(state=RayState.UP))
    watched = (WatchDirectory(path=Path("/incoming")), WatchDirectory(path=Path("/disk"), suspended="it is gone"))
    return Snapshot(
        now=1.0,
        models=models,
        fleet=fleet,
        server=server,
        scanned=True,
        directories=watched,
        turn_age_s=0.5,
        longest_pause_s=0.25,
        nursery=NurseryStatus(processes=1, children=2, held_bytes=300),
    )


def busy_recorder(models: Iterable[str]) -> Recorder:
    """One event of each kind for each model."""
    recorder = Recorder()
    for model in models:
        recorder.request(model, 200, 0.02)
        recorder.infer_retry(model)
        recorder.cold_start(model, 3.0)
        recorder.waited(model, "ana", 3.0)
        recorder.first_token(model, 0.02, 5)
        recorder.output_tokens(model, 3)
        recorder.load(model, "ok", 2.0)
        recorder.unload(model, "evict.5", 0.5)
    recorder.eviction("evict.5", 700.0)
    recorder.preload("wasted", 3.0)
    recorder.read_ahead("begun", 2**20)
    recorder.swap("host")
    recorder.decision("load", "plan.3")
    recorder.watcher_lag(0.1)
    recorder.scan(0.02)
    recorder.triton_restart()
    recorder.ray_restart()
    return recorder


class Scrape(Collector):
    def __init__(self, snapshot: Snapshot, recorder: Recorder) -> None:
        self._snapshot = snapshot
        self._recorder = recorder

    def collect(self) -> Iterable[Metric]:
        return collect(self._snapshot, self._recorder)


def scrape(snapshot: Snapshot, recorder: Recorder, accept: str = "") -> str:
    recorder.keep(frozenset(model.name for model in snapshot.models))
    encode, _ = choose_encoder(accept)
    text: str = encode(Scrape(snapshot, recorder)).decode()
    return text


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def test_both_formats_parse_and_agree() -> None:
    now, recorder = snapshot(status("a"), status("b", State.UNLOADED)), busy_recorder(["a", "b"])
    text = list(parse_text(scrape(now, recorder)))
    open_metrics = list(parse_openmetrics(scrape(now, recorder, OPENMETRICS)))  # type: ignore[no-untyped-call]
    names = [{f.name for f in families if f.name.startswith("modelium_")} for families in (text, open_metrics)]
    # OpenMetrics has the info's family name without its suffix.
    assert {name.removesuffix("_total").removesuffix("_info") for name in names[0]} == names[1]


def test_a_scrape_has_every_documented_series_and_no_other() -> None:
    now = replace(snapshot(status("a", waiting=2, revision_error="too big")), waiting_by_key={"ana": 2})
    text = scrape(now, busy_recorder(["a"]))
    found: dict[str, set[str]] = {}
    for name, labels in series(text):
        if name.startswith("modelium_"):
            base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count").removesuffix("_created")
            found.setdefault(base, set()).update(key for key, _ in labels if key != "le")
    assert found == {family.name: set(family.labels) for family in FAMILIES}


def test_the_names_of_keys_make_a_bounded_number_of_series() -> None:
    recorder = Recorder()
    for number in range(150):
        recorder.waited("a", f"key{number}", 2.0)
    recorder.waited("a", "key3", 1.0)
    now = replace(snapshot(status("a")), waiting_by_key={f"key{number}": number + 1 for number in range(150)})
    found = series(scrape(now, recorder))
    assert found["modelium_key_waits_total", (("key", "key3"),)] == 2
    assert found["modelium_key_wait_seconds_total", (("key", "other"),)] == 100
    waiting = [labels for name, labels in found if name == "modelium_key_requests_waiting"]
    assert len(waiting) == 100 and (("key", "key149"),) in waiting and (("key", "key0"),) not in waiting
    assert found["modelium_queue_wait_seconds_count", (("model", "a"),)] == 151


def test_the_documentation_is_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == reference()


def test_names_keep_to_prometheus_conventions() -> None:
    for family in FAMILIES:
        assert family.name.startswith("modelium_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert (family.kind == "histogram") == bool(family.buckets)
        assert family.kind != "histogram" or family.name.endswith("_seconds")
        assert sorted(family.buckets) == list(family.buckets)


def test_unloads_that_had_to_kill_are_counted_among_the_others() -> None:
    recorder = Recorder()
    for killed in (False, True, False):
        recorder.unload("a", "user", 1.0, killed=killed)
    found = series(scrape(snapshot(status("a")), recorder))
    assert found["modelium_model_unloads_total", (("model", "a"), ("rule", "user"))] == 3
    assert found["modelium_model_unload_kills_total", (("model", "a"),)] == 1


def test_values_come_from_the_snapshot() -> None:
    found = series(scrape(snapshot(status("a", waiting=2), status("b", State.UNLOADED)), Recorder()))
    assert found["modelium_model_state", (("model", "a"), ("state", "LOADED"))] == 1
    assert found["modelium_models", (("state", "UNLOADED"),)] == 1
    assert found["modelium_models", (("state", "FAILED"),)] == 0
    assert found["modelium_requests_waiting", (("model", "a"),)] == 2
    assert ("modelium_requests_waiting", (("model", "b"),)) not in found
    assert ("modelium_model_idle_seconds", (("model", "b"),)) not in found
    assert found["modelium_model_memory_bytes", (("device", "host"), ("kind", "measured"), ("model", "a"))] == 900
    assert ("modelium_model_memory_bytes", (("device", "host"), ("kind", "measured"), ("model", "b"))) not in found
    assert found["modelium_model_estimate_error_ratio", (("model", "a"),)] == 1000 / 900 - 1
    assert ("modelium_model_estimate_error_ratio", (("model", "b"),)) not in found
    for kind, size in (("promised", 950), ("held", 800)):
        assert found["modelium_model_memory_bytes", (("device", "host"), ("kind", kind), ("model", "a"))] == size
        assert ("modelium_model_memory_bytes", (("device", "host"), ("kind", kind), ("model", "b"))) not in found
    assert found["modelium_device_memory_bytes", (("device", "host"), ("kind", "budget"))] == 75
    assert found["modelium_device_leaked_bytes", (("device", "host"),)] == 5
    assert found["modelium_loop_turn_age_seconds", ()] == 0.5
    assert found["modelium_loop_longest_pause_seconds", ()] == 0.25
    assert found["modelium_triton_up", ()] == 1


def test_a_revision_that_failed_is_seen_while_the_old_one_serves() -> None:
    models = (status("a", revision_error="no"), status("b"), status("c", State.UNLOADED, revision_error="no"))
    found = series(scrape(snapshot(*models), Recorder()))
    assert [key for key in found if key[0] == "modelium_model_revision_failed"] == [
        ("modelium_model_revision_failed", (("model", "a"),))
    ]


def test_what_follows_a_load_is_seen_by_rates() -> None:
    """A series that begins with its first event hides that event: it has to be there before, at 0."""
    recorder = Recorder()
    recorder.placed("host")
    recorder.load("a", "ok", 2.0)
    now = snapshot(status("a"))
    before = series(scrape(now, recorder))
    assert before["modelium_swaps_total", (("device", "host"),)] == 0
    recorder.request("a", 200, 0.02)
    recorder.cold_start("a", 1.0)
    recorder.load("a", "failed", 2.0)
    recorder.swap("host")
    after = series(scrape(now, recorder))
    grown = {name for (name, labels), value in after.items() if value > before.get((name, labels), 0)}
    assert grown > {"modelium_requests_total", "modelium_request_duration_seconds_count", "modelium_cold_starts_total"}
    assert {"modelium_model_loads_total", "modelium_swaps_total"} <= grown
    assert after.keys() == before.keys()


def test_a_removed_models_series_vanish_and_begin_again() -> None:
    recorder = busy_recorder(["a", "b"])
    recorder.request("", 404, 0.001)
    text = scrape(snapshot(status("b")), recorder)
    assert 'model="a"' not in text
    assert 'model="b"' in text
    assert recorder.counted(REQUESTS) == [(("b", "200"), 1), (("", "404"), 1)]
    recorder.request("a", 200, 0.02)
    assert 'modelium_requests_total{code="200",model="a"} 1.0' in scrape(snapshot(status("a")), recorder)


def test_odd_names_are_escaped() -> None:
    found = series(scrape(snapshot(status('a"b\\c\nd')), Recorder()))
    assert ("modelium_model_state", (("model", 'a"b\\c\nd'), ("state", "LOADED"))) in found


def test_buckets_hold_all_below_them() -> None:
    histogram = Histogram(AGE_BUCKETS)
    for value in (0, 60, 61, 10**9):
        histogram.observe(value)
    buckets, total = histogram.cumulative()
    assert [*buckets[:2], buckets[-1]] == [("60.0", 2), ("300.0", 3), ("+Inf", 4)]
    assert total == 10**9 + 121


def test_two_thousand_models_scrape_quickly() -> None:
    """About as much as a million turns of a loop, a tenth of them in use; each against each would be hundreds of times that."""
    names = [f"model-{index}" for index in range(2000)]
    now = snapshot(*(status(name, State.LOADED if index < 200 else State.UNLOADED) for index, name in enumerate(names)))
    recorder = busy_recorder(names[:200])
    cheapest = min(cpu_s(lambda: scrape(now, recorder)) for _ in range(3))  # one may pay for a look at the other tests' garbage
    assert cheapest < 20 * work_s()
