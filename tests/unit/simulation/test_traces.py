"""Traces and specifications: what is right is read, what is wrong is refused with its place and what to write instead."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.simulation.generated import generate, is_generated, parse_habits
from modelium.simulation.inputs import HEADS, SMALLEST_PART, BadInput, SimulatedModel
from modelium.simulation.runs import Setting, run_each
from modelium.simulation.simulator import Conditions
from modelium.simulation.specs import (
    MOST_DEVICES,
    in_words,
    largest_made,
    not_held,
    of_the_trace,
    parse_fleet,
    parse_made,
    plausible_models,
    read_models,
    spread,
)
from modelium.simulation.traces import LONGEST_LINE, Trace, parse_trace
from modelium.sizes import GIB
from modelium.values import Policies


def parse(text: str | bytes) -> Trace:
    return parse_trace(io.BytesIO(text.encode() if isinstance(text, str) else text), "t.csv", duration_s=1.0)


def test_a_trace_is_read_with_or_without_header_durations_and_remarks() -> None:
    trace = parse("\ufefftime_s,model,duration_s\n100,a,2.5\n# a remark\n\n100.5, org/b ,\n103,a\n")
    assert trace.names == ("a", "org/b")
    assert list(trace.arrivals()) == [(0.0, 0, 2.5), (0.5, 1, 1.0), (3.0, 0, 1.0)]
    assert (len(trace), trace.seconds) == (3, 3.0)
    assert len(parse("# mine\n\ntime_s,model\n1,a\n")) == 1, "the header is the first line that says something"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no requests"),
        ("time_s,model\n", "no requests"),
        ("1\n", "line 1: 1 fields"),
        ("1,a,2,3\n", "line 1: 4 fields"),
        ("2026-01-31T12:00:00Z,a\n", "which is no number; write seconds"),
        ("1700000000000,a\n", "milliseconds (divide by 1,000)"),
        ("# mine\n\ntime_s,model\ntime_s,model\n", "line 4: time_s is 'time_s'"),
        ("1,a\nsoon,a\n", "line 2: time_s is 'soon'"),
        ("1,a\nnan,a\n", "line 2: time_s is nan"),
        ("1,a\n-3,a\n", "line 2: time_s is -3"),
        ("1,a\n1e300,a\n", "line 2: time_s is 1e300"),
        ("1,a,-1\n", "line 1: duration_s is -1"),
        ("1,a,inf\n", "line 1: duration_s is inf"),
        ("5,a\n4,a\n", "line 2: time goes back from 5 to 4; sort it"),
        ("1,\n", "line 1: it names no model"),
        ("1,a\n2," + "x" * LONGEST_LINE, "line 2: longer than"),
        (b"1,a\n2,\xff\n", "line 2: it is no UTF-8"),
    ],
)
def test_what_is_no_trace_is_refused_at_its_line(text: str | bytes, says: str) -> None:
    with pytest.raises(BadInput, match=r"t\.csv") as refused:
        parse(text)
    assert says in str(refused.value)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_trace_or_a_refusal(content: bytes) -> None:
    try:
        trace = parse(content)
    except BadInput:
        return
    assert len(trace) and np.all(np.diff(trace.times) >= 0) and trace.times[0] == 0


def test_a_generated_trace_is_the_same_for_a_seed_and_another_for_another() -> None:
    habits = parse_habits("zipf:requests=2000,models=30,hours=12")
    one, two, other = generate(habits), generate(habits), generate(parse_habits("zipf:requests=2000,models=30", seed=9))
    assert np.array_equal(one.times, two.times) and np.array_equal(one.models, two.models)
    assert not np.array_equal(one.models, other.models)
    assert len(one) == 2000 and len(one.names) == 30 and np.all(np.diff(one.times) >= 0)
    counts = np.sort(np.bincount(one.models, minlength=30))[::-1]
    assert counts[0] > 4 * counts[15], "few models have most requests"


@given(
    requests=st.integers(1, 300),
    models=st.integers(1, 40),
    exponent=st.floats(0, 3),
    rhythm=st.floats(0, 1),
    burst=st.floats(1, 50),
    seed=st.integers(0, 2**32),
)
def test_any_habits_give_so_many_requests_in_order(
    requests: int, models: int, exponent: float, rhythm: float, burst: float, seed: int
) -> None:
    line = f"zipf:requests={requests},models={models},exponent={exponent},rhythm={rhythm},burst={burst},seed={seed}"
    trace = generate(parse_habits(line))
    assert len(trace) == requests and len(trace.names) == models
    assert np.all(np.diff(trace.times) >= 0) and np.all(trace.models < models) and np.all(trace.durations >= 0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("zipf:model=3", "did you mean models=…?"),
        ("zipf:requests=many", "that is no int"),
        ("zipf:requests=0", "from 1 to"),
        ("zipf:rhythm=nan", "from 0 to 1"),
        ("zipf:requests", "not understood"),
    ],
)
def test_habits_that_nobody_has_are_refused(line: str, says: str) -> None:
    assert is_generated(line)
    with pytest.raises(BadInput) as refused:
        parse_habits(line)
    assert says in str(refused.value)


# -- devices and models --------------------------------------------------------------------------------------------


def test_a_fleet_is_gpus_and_a_host() -> None:
    fleet = parse_fleet("2x24GiB, 80GiB ,host:64GiB", gpu_fraction=0.5)
    assert [device.id for device in fleet.devices] == ["host", "cuda:0", "cuda:1", "cuda:2"]
    assert [device.budget_bytes // GIB for device in fleet.devices] == [64, 12, 12, 40]
    assert in_words(fleet) == "host: 64.0 GiB, 2 x 24.0 GiB, 1 x 80.0 GiB"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x80GiB",
        "8xlarge",
        "8x",
        "host:",
        "host:0",
        "-3x8GiB",
        f"{MOST_DEVICES + 1}x1GiB",
        "x8GiB",
        "80",
        "8x80",
        "host:64",
        "8x80B",
    ],
)
def test_what_is_no_fleet_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--fleet"):
        parse_fleet(text, gpu_fraction=0.9)


def test_models_are_read_from_csv_and_json(tmp_path: Path) -> None:
    table, listed = tmp_path / "m.csv", tmp_path / "m.json"
    table.write_text("name,bytes,load_seconds,pinned\na,16GiB,8,true\nb,1024,0.5,\n")
    listed.write_text(
        '[{"name": "a", "bytes": "16GiB", "load_seconds": 8, "pinned": true},{"name": "b", "bytes": 1024, "load_seconds": 0.5}]'
    )
    bare = tmp_path / "bare.csv"
    bare.write_text("# mine\na,16GiB,8\nb,1024,0.5,2\n")
    assert read_models(table) == read_models(listed)
    assert [(model.name, model.bytes, model.pinned) for model in read_models(table)] == [
        ("a", 16 * GIB, True),
        ("b", 1024, False),
    ]
    assert [model.unload_seconds for model in read_models(bare)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no models"),
        ("name,weight\na,3\n", "there is no column 'weight'"),
        ("a,16GiB,8\na,1GiB,8\n", "'a' is in it twice"),
        ("a,huge,8\n", "row 1, bytes"),
        ("a,0,8\n", "row 1, bytes"),
        ("a,huge,8\n", "row 1, bytes: 'huge' is not a size"),
        ("a,16,8\n", "write the unit, as 16GiB"),
        ("a,1GiB\n", "load_seconds: it is missing"),
        ('{"name": "a"}', "the models are a list of them"),
        ("a,1GiB,-8\n", "row 1, load_seconds"),
        ("name,bytes,load_seconds,tensor_parallel\na,16GiB,8,7\n", "no model is spread over 7 GPUs; usual are 2, 4 and 8"),
        ("a,1GiB,nan\n", "row 1, load_seconds"),
        ("a,1GiB\n", "row 1, load_seconds"),
        ('[{"name": "a"}]', "entry 1, bytes"),
        ("[1", "its start"),
        ("a,1,1,1,cuda:0,false,false,2,more\n", "row 1: 9 fields"),
        ('"a,1,1\n', "no CSV"),
    ],
)
def test_what_is_no_list_of_models_is_refused_at_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_models(path)
    assert says in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_models(tmp_path / "no.csv")


def test_models_that_are_made_up_fit_a_device_and_are_the_same_for_a_seed() -> None:
    for fleet in (parse_fleet("8x80GiB", gpu_fraction=0.9), parse_fleet("1x512MiB", gpu_fraction=0.9)):
        largest = largest_made(fleet)
        made = plausible_models(("a", "b", "c"), largest, seed=3)
        assert made == plausible_models(("a", "b", "c"), largest, seed=3)
        assert all(0 < model.bytes <= fleet.devices[0].budget_bytes for model in made)


def test_what_is_larger_than_each_device_is_spread_over_the_fewest_equal_gpus() -> None:
    fleet = parse_fleet("4x24GiB,1x40GiB,host:8GiB", gpu_fraction=1.0)

    def spread_over(size: int, ranks: int = 1, device: str | None = None) -> int:
        model = SimulatedModel(name="m", bytes=size * GIB, load_seconds=1, tensor_parallel=ranks, device=device)
        return spread([model], fleet)[0].tensor_parallel

    assert [spread_over(size) for size in (24, 40, 41, 49, 96, 97)] == [1, 1, 2, 4, 4, 1]
    assert (spread_over(20, 2), spread_over(60, device="cuda:0")) == (2, 1)
    for ranks, size, device, says in (
        (8, 60, None, "to be on 8 equal GPUs, and there are 4"),
        (4, 7, None, "smaller than an engine on so many (8.0 GiB)"),
        (2, 60, "cuda:0", "leave device or tensor_parallel out"),
    ):
        with pytest.raises(BadInput) as refused:
            spread_over(size, ranks, device)
        assert says in str(refused.value)


def test_the_smallest_model_that_may_be_spread_is_planned_on_each_usual_number_of_gpus() -> None:
    """An engine takes something however small the model is."""
    fleet = parse_fleet("16x80GiB", gpu_fraction=0.9)
    for ranks in (number for number in range(2, 17) if HEADS % number == 0):
        model = SimulatedModel(name="m", bytes=ranks * SMALLEST_PART, load_seconds=1, tensor_parallel=ranks)
        trace = Trace(names=("m",), times=np.zeros(1), models=np.zeros(1, np.int32), durations=np.zeros(1, np.float32))
        setting = Setting(trace=trace, models=[model], fleet=fleet, policies=Policies(), conditions=Conditions())
        [outcome] = run_each(setting, ["modelium"])
        assert (outcome.loads, outcome.refused) == (1, 0)


def test_models_come_in_the_order_of_the_trace() -> None:
    models, unknown = of_the_trace(("b", "who", "a"), plausible_models(("a", "b", "unasked"), GIB, seed=3))
    assert ([model.name for model in models], unknown) == (["b", "", "a", "unasked"], frozenset({1}))


def test_models_that_are_made_up_can_be_had_again_for_another_fleet() -> None:
    names = tuple(f"m{number}" for number in range(50))
    one = plausible_models(names, largest_made(parse_fleet("2x24GiB", gpu_fraction=0.9)), seed=3)
    assert one == plausible_models(names, parse_made("made:16GiB"), seed=3)
    for wrong in ("made:", "made:16", "made:much", "made:1KiB"):
        with pytest.raises(BadInput, match="made:16GiB"):
            parse_made(wrong)


def test_who_cannot_be_held_is_named_with_why() -> None:
    fleet = parse_fleet("2x24GiB,host:8GiB", gpu_fraction=1.0)
    models = [
        SimulatedModel(name="fits", bytes=24 * GIB, load_seconds=1),
        SimulatedModel(name="wide", bytes=60 * GIB, load_seconds=1),
        SimulatedModel(name="put", bytes=9 * GIB, load_seconds=1, device="host"),
        SimulatedModel(name="two", bytes=50 * GIB, load_seconds=1, tensor_parallel=2),
    ]
    assert not_held(models, fleet) == [
        "wide (60.0 GiB; the largest device has 24.0 GiB)",
        "put (9.0 GiB; host has 8.0 GiB)",
        "two (25.0 GiB on each of 2 equal GPUs)",
    ]


def test_a_comma_at_the_end_of_a_header_is_no_column(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("name,bytes,load_seconds,\na,16GiB,8,\n")
    assert [model.bytes for model in read_models(path)] == [16 * GIB]
