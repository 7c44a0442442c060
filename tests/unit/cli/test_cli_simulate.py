"""``modelium simulate`` as a user runs it: a table, JSON, a picture, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.cli import main
from modelium.simulation.orders import PLAIN

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
    assert said.index("plain-lru") < said.index("modelium")
    assert Path("simulated.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.csv"], "no.csv cannot be read"),
        (["trace.csv", "--models", "one.csv"], "1 models of the trace are not in one.csv: b"),
        (["trace.csv", "--models", "there.csv", "--fleet", "1x80GiB"], "a is to be on cuda:9, which is not in the fleet"),
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
