"""``modelium simulate`` as a user runs it: a table, JSON, a picture, and errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelium.cli import main, replies
from modelium.cli.running import running_models
from modelium.cli.simulated import Lines
from modelium.config import Settings
from modelium.simulation.orders import PLAIN
from modelium.simulation.specs import parse_fleet
from modelium.sizes import GIB
from tests.unit.cli.test_cli_remote import SNAPSHOT, answering, reply_of
from tests.unit.views import snapshot_view

TRACE = "time_s,model,duration_s\n0,a,0.5\n60,b,0.5\n120,a,0.5\n"
MODELS = "name,bytes,load_seconds\na,40GiB,8\nb,40GiB,8\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but what the test writes."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    return int(ended.value.code or 0)


def test_a_trace_is_simulated_under_all_policies(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trace.csv").write_text(TRACE)
    Path("models.csv").write_text(MODELS)
    assert run("trace.csv", "--models", "models.csv", "--fleet", "1x80GiB", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["requests"], said["models"], said["seconds"]) == (3, 2, 120.0)
    assert [device["device"] for device in said["fleet"]] == ["cuda:0"]
    assert [outcome["policy"] for outcome in said["outcomes"]] == ["modelium", *PLAIN]
    assert all(outcome["requests"] == 3 and outcome["loads"] == 3 for outcome in said["outcomes"])


def test_a_made_up_trace_gives_a_table_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    line = "zipf:requests=200,models=5,hours=1"
    assert run(line, "--policy", "plain-lru", "--policy", "modelium", "--picture", "simulated.png") == 0
    said = capsys.readouterr().out
    assert "200 requests for 5 models" in said and "8 x 80.0 GiB" in said
    assert "made up" in said and "made:40GiB" in said
    assert said.index("plain-lru") < said.index("modelium")
    assert Path("simulated.png").read_bytes().startswith(b"\x89PNG")


def test_a_seed_is_in_the_line_or_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for arguments in (["zipf:requests=50,seed=3"], ["zipf:requests=50", "--seed", "3"], ["zipf:requests=50"]):
        assert run(*arguments, "--policy", "plain-lru", "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["seconds"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.csv"], "no.csv cannot be read"),
        (["trace.csv", "--models", "one.csv"], "1 model of the trace is not in one.csv: b"),
        (["trace.csv", "--models", "there.csv", "--fleet", "1x80GiB"], "a is to be on cuda:9, which is not in the fleet"),
        (["trace.csv", "--duration", "inf"], "--duration inf: from 0 to 604,800 seconds"),
        (["Zipf:requests=3"], "zipf: does"),
        (["poisson:rate=3"], "zipf: does"),
        (["trace.csv", "--models", "made:80"], "As made:16GiB"),
        (["trace.csv", "--fleet", "8x80"], "8x80GiB"),
        (["trace.csv", "--fleet", "much"], "a fleet is like 8x80GiB"),
        (["zipf:request=3"], "did you mean requests=…?"),
        (["trace.csv", "--policy", "lru-plain"], "is not known"),
        (["trace.csv", "--picture", "no/such/folder.png", "--policy", "plain-lru"], "cannot be written"),
    ],
)
def test_what_cannot_be_simulated_is_one_line_and_exit_code_1(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("trace.csv").write_text(TRACE)
    Path("one.csv").write_text("a,1GiB,1\n")
    Path("there.csv").write_text("name,bytes,load_seconds,device\na,1GiB,1,cuda:9\nb,1GiB,1,cuda:0\n")
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("modelium: ") and says in said and said.count("\n") == 1


# -- of a running Modelium -----------------------------------------------------------------------------------------

KEPT = b"time_s,model,duration_s\n1700000000.5,minilm,0.1\n1700000009,gone,0.1\n1700000003,minilm,\n"


def test_what_is_not_given_is_taken_of_a_running_modelium(capsys: pytest.CaptureFixture[str]) -> None:
    replies = {"/trace": KEPT, "/models": reply_of(snapshot_view(SNAPSHOT))}
    with answering(200, replies) as (url, asked):
        assert run("--url", url, "--policy", "modelium", "--json") == 0
        assert asked == ["GET /trace", "GET /models"]
        said = capsys.readouterr()
        assert "1 model of the trace is not there any more and left out: gone" in said.err
        found = json.loads(said.out)
        assert found["requests"] == 2 and found["seconds"] == 8.5, "where the clock was set back, time goes on"
        assert found["fleet"] == [{"device": "host", "budget_bytes": 2**33}]
        assert (found["outcomes"][0]["loads"], found["outcomes"][0]["load_seconds"]) == (1, 3.2), "minilm is pinned"
        assert run("--url", url, "--fleet", "host:100MiB", "--policy", "modelium", "--json") == 0
        assert json.loads(capsys.readouterr().out)["outcomes"][0]["refused"] == 2, "what if there was less?"


def test_a_model_that_runs_on_two_devices_is_simulated_on_two_where_there_are_two() -> None:
    listing = replies.models(reply_of(snapshot_view(SNAPSHOT)))
    wide = replace(listing.models[0], devices=("cuda:0", "cuda:1"))
    each = wide.memory_bytes or 0
    for devices, ranks in (("2x80GiB", 2), ("1x80GiB,1x24GiB", 1), ("host:64GiB", 1)):
        fleet = parse_fleet(devices, gpu_fraction=0.9)
        [model] = running_models(replace(listing, models=(wide,)), Settings(), fleet)
        assert (model.bytes, model.tensor_parallel) == (2 * each, ranks)


def test_what_a_user_chose_for_a_model_is_simulated_where_the_fleet_has_it() -> None:
    listing, fleet = replies.models(reply_of(snapshot_view(SNAPSHOT))), parse_fleet("2x80GiB,1x24GiB", gpu_fraction=1.0)
    name = listing.models[0].name

    def taken(**chosen: object) -> tuple[set[str], int]:
        settings = Settings.model_validate({"models": {name: chosen}})
        model = next(model for model in running_models(listing, settings, fleet) if model.name == name)
        return set(model.devices), model.bytes // GIB

    assert taken(devices=["cuda:1", "cuda:2", "cuda:7"], memory="3GiB") == ({"cuda:1", "cuda:2"}, 3)
    assert taken(devices=["cuda:2"], exclusive=True) == ({"cuda:2"}, 24)
    assert taken(devices=["cuda:7"], exclusive=True) == (set(), 80)


def test_a_modelium_that_keeps_no_trace_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, b"time_s,model,duration_s\n") as (url, _):
        assert run("--url", url) == 1
    assert "no requests in it" in capsys.readouterr().err


def test_what_has_to_be_known_of_the_figures_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trace.csv").write_text("0,a\n")
    Path("models.csv").write_text("a,40GiB,8\n")
    assert run("trace.csv", "--models", "models.csv", "--fleet", "1x24GiB", "--policy", "modelium", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["models_made_up"] is None and "a (40.0 GiB; the largest device has" in said["not_held"][0]
    assert run("trace.csv", "--models", "made:16GiB", "--fleet", "1x24GiB", "--policy", "modelium", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["models_made_up"] == "made:16GiB" and said["not_held"] == []
    assert run("trace.csv", "--policy", "modelium") == 0
    assert "1 request for 1 model in" in capsys.readouterr().out


def test_where_no_terminal_is_a_line_says_every_some_seconds_how_far_it_is() -> None:
    lines: list[str] = []
    instants = iter([0.0, 1.0, 11.0, 12.0, 22.0])
    tell = Lines(lines.append, lambda: next(instants))
    for part in (0.1, 0.2, 0.3, 0.4):
        tell("plain-lru", part)
    assert lines == ["modelium: simulates plain-lru: 20%\n", "modelium: simulates plain-lru: 40%\n"]
