"""The verbs of this machine, run as a user runs them: what they print, what goes to stderr, and their exit codes."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelium import views
from modelium.analysis.wire import decode
from modelium.cli import diagnosis, main
from modelium.cli.checks import Check, Outcome
from modelium.cli.offline import candidate_at
from modelium.config import Settings
from modelium.values import Decision, ModelProfile, Plan, Verb
from modelium.views import written
from tests.patience import PATIENCE_S
from tests.unit.cli.test_cli_remote import answering, reply_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but what the test writes."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A whole text classifier of 80 parameters: enough for everything but running it."""
    folder = tmp_path / "tiny-bert"
    folder.mkdir()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": 8,
        "max_position_embeddings": 64,
        "id2label": {"0": "bad", "1": "good"},
        "label2id": {"bad": 0, "good": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 64}))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n")
    header = json.dumps({"classifier.weight": {"dtype": "F32", "shape": [10, 8], "data_offsets": [0, 320]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(320))
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


# -- inspect and render --------------------------------------------------------------------------------------------


def test_inspect_says_what_a_folder_is_and_how_it_would_be_served(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(classifier)) == 0
    shown = capsys.readouterr().out
    for words in ("tiny-bert", "text-classification", "80", "320 bytes", "2 (bad, good)", "python", "host", "TEXT", "LABEL"):
        assert words in shown


def test_inspect_as_json_is_only_json(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(classifier), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["task"], found["parameters"], found["weight_bytes"]) == (
        "tiny-bert",
        "text-classification",
        80,
        320,
    )
    assert (found["runtime"], found["device"]) == ("python", "host")
    assert found["estimated_bytes"] > 2**20


def test_inspect_of_what_is_no_model_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path, words in (("empty", "empty"), ("nowhere", "no such file or folder")):
        assert run("inspect", path) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("modelium: ") and words in captured.err
        assert len(captured.err.splitlines()) == 1


def test_inspect_of_a_hugging_face_cache_looks_at_the_snapshot_that_is_served(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "hub" / "models--acme--tiny"
    for revision, names in {"aaa": [path.name for path in classifier.iterdir()], "bbb": ["config.json"]}.items():
        (cache / "snapshots" / revision).mkdir(parents=True)
        (cache / "blobs").mkdir(exist_ok=True)
        for name in names:
            blob = cache / "blobs" / f"{revision}-{name}"
            blob.write_bytes((classifier / name).read_bytes())
            (cache / "snapshots" / revision / name).symlink_to(f"../../blobs/{blob.name}")
    (cache / "refs").mkdir()
    for revision, note in {
        "aaa": None,
        "bbb": "snapshot bbb is not whole yet, the older aaa is served: finish its download",
    }.items():
        (cache / "refs" / "main").write_text(revision)
        for path in (str(cache), "hub/models--acme--tiny/"):
            assert run("inspect", path, "--json") == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["name"], found["path"], found["note"]) == ("acme--tiny", str(cache / "snapshots" / "aaa"), note)
    assert run("inspect", str(cache)) == 0
    assert "not whole yet, the older aaa" in " ".join(capsys.readouterr().out.split())
    assert run("inspect", str(cache / "snapshots" / "bbb")) == 1
    assert "not complete" in capsys.readouterr().err


def test_inspect_of_half_a_copy_says_what_is_missing(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = classifier / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert run("inspect", str(classifier)) == 1
    assert "not complete: model.safetensors" in capsys.readouterr().err


def test_a_device_that_is_too_small_is_said_and_exits_1(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelium.yaml").write_text("devices: {host_memory: 1MiB}")
    assert run("inspect", str(classifier)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"it fits on no device: it needs [\d.]+ [MG]iB on host \(budget 1 MiB\)", shown)


def test_render_writes_a_whole_entry(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", str(classifier), "--out", "out") == 0
    assert "config.pbtxt" in capsys.readouterr().out
    config = (tmp_path / "out" / "tiny-bert" / "config.pbtxt").read_text(encoding="utf-8")
    assert str(classifier) in config
    assert (tmp_path / "out" / "tiny-bert" / "1" / "model.py").is_file()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tiny-bert"], "nothing else is left there"


def test_render_tells_its_files_as_json(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", str(classifier), "--out", "out", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert Path(written["entry"]).is_dir()
    assert {"config.pbtxt", "1/model.py"} <= set(written["files"])


def test_a_revision_in_a_hugging_face_cache_has_its_models_name(tmp_path: Path) -> None:
    revision = tmp_path / "models--org--name" / "snapshots" / "abc"
    revision.mkdir(parents=True)
    candidate = candidate_at(revision)
    assert (candidate.label, candidate.name, candidate.root) == ("org/name", "org--name", tmp_path)


def test_an_onnx_file_is_named_without_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"x")
    assert candidate_at(tmp_path / "net.onnx").name == "net"


# -- configuration, usage, help ------------------------------------------------------------------------------------


def test_config_prints_what_would_give_the_same_settings(capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelium.yaml").write_text("gateway: {port: 8111}\nmodels: {bert: {pin: true}}\n")
    assert run("config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["gateway"]["port"] == 8111
    assert Settings.model_validate(printed).models["bert"].pin
    assert run("config", "--json") == 0
    assert json.loads(capsys.readouterr().out)["gateway"]["port"] == 8111


def test_config_check_finds_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--check") == 0
    Path("other.yaml").write_text("gatway: {port: 1}")
    assert run("--config", "other.yaml", "config", "--check") == 1
    captured = capsys.readouterr()
    assert "other.yaml: gatway: unknown key; did you mean 'gateway'?" in captured.err


@pytest.mark.parametrize("arguments", [["nonsense"], ["inspect"], ["render", "x"], ["load"], ["list", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_remote_verb_with_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = unused.getsockname()[1]
        Path("modelium.yaml").write_text(f"gateway: {{host: 0.0.0.0, port: {port}}}")
        for arguments in (["list"], ["status", "x"], ["why", "x"], ["plan"], ["load", "x"], ["unload", "x"], ["pin", "x"]):
            assert run(*arguments) == 1
            expected = f"modelium: no Modelium answers at http://127.0.0.1:{port}; start one with `modelium serve`"
            assert capsys.readouterr().err.startswith(expected)


def test_what_a_drop_would_do_is_asked_with_what_was_found_in_the_folder(
    classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = Decision(at=50.0, model="tiny-bert", verb=Verb.WAIT, rule="plan.4", reason="no room")
    reply, bodies = reply_of(written(views.Plan, Plan(decisions=(waits,)), 50.0)), list[bytes]()
    with answering(200, reply, bodies) as (url, asked):
        assert run("--url", url, "plan", "--with", str(classifier)) == 0
    assert asked[0].startswith("POST /plan") and "no room" in capsys.readouterr().out
    found = decode(bodies[0])
    assert isinstance(found, ModelProfile) and (found.name, found.parameters) == ("tiny-bert", 80)
    for empty in (("--url", "http://127.0.0.1:9", "plan", "--with", ""), ("inspect", ""), ("render", "", "--out", "out")):
        assert run(*empty) == 2
        assert "it is empty" in capsys.readouterr().err
    assert run("--url", "http://127.0.0.1:9", "plan", "--with", "nowhere") == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_help_comes_without_the_heavy_imports() -> None:
    code = (
        "import sys, modelium.cli; sys.exit(bool({'pydantic', 'aiohttp', 'transformers', 'grpc', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=PATIENCE_S, check=False).returncode == 0


# -- doctor --------------------------------------------------------------------------------------------------------


def check_named(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_doctor_names_the_taken_port_and_the_missing_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # The gateway's port too: a Modelium that happens to run on the default one makes its own ports no fault.
        Path("modelium.yaml").write_text(
            f"gateway: {{port: {port}}}\ntriton: {{http_url: '127.0.0.1:{port}', runtime_directory: './no: thing'}}"
        )
        assert run("doctor", "--json") == 1
        as_json = capsys.readouterr().out
        assert run("doctor") == 1
    checks = {check["name"]: check for check in json.loads(as_json)}
    assert checks["triton http port"]["outcome"] == "fail"
    assert "triton.http_url" in checks["triton http port"]["remedy"]
    assert checks["model runtime"]["outcome"] == "fail"
    assert "no: thing" in checks["model runtime"]["found"]
    assert checks["model runtime"]["remedy"].startswith("`modelium runtime install` makes it")
    assert "triton.http_url" in capsys.readouterr().out


def test_doctor_says_who_may_ask_and_shows_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "doctors-key-0123456789"
    keys = tmp_path / "keys"
    keys.write_text(f"ana: {key}\nci: {key}0\n", encoding="utf-8")
    found = {}
    for name, gateway, mode in (
        ("alone", {}, 0o600),
        ("open", {"host": "0.0.0.0"}, 0o600),
        ("locked", {"host": "0.0.0.0", "api_keys_file": str(keys)}, 0o600),
        ("lent", {"host": "0.0.0.0", "api_keys_file": str(keys)}, 0o644),
        ("broken", {"api_keys_file": str(tmp_path / "nowhere")}, 0o600),
    ):
        keys.chmod(mode)
        Path("modelium.yaml").write_text(json.dumps({"gateway": gateway}))
        for arguments in (("doctor", "--json"), ("config", "--json"), ("config",)):
            with pytest.raises(SystemExit):
                main(arguments)
            shown = capsys.readouterr().out
            assert key not in shown
            if arguments[0] == "doctor":
                found[name] = next(check for check in json.loads(shown) if check["name"] == "access")
    assert {name: check["outcome"] for name, check in found.items()} == {
        "alone": "ok",
        "open": "warn",
        "locked": "ok",
        "lent": "warn",
        "broken": "fail",
    }
    assert "one of the 2 keys" in found["locked"]["found"] and "chmod o-r" in found["lent"]["remedy"]
    assert "gateway.api_keys_file" in found["open"]["remedy"]


def test_doctor_asks_an_external_triton_instead_of_the_runtime() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = Settings.model_validate(
            {
                "triton": {
                    "mode": "external",
                    "http_url": f"127.0.0.1:{unused.getsockname()[1]}",
                    "runtime_directory": "./nothing",
                }
            }
        )
        checks = diagnosis.examine(settings)
    assert check_named(checks, "triton").outcome is Outcome.FAIL
    assert "--model-control-mode=explicit" in check_named(checks, "triton").remedy
    assert "model runtime" not in {check.name for check in checks}


def test_doctor_names_a_repository_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings.model_validate({"triton": {"mode": "external", "model_repository": "file/repository"}})
    repository = check_named(diagnosis.examine(settings), "repository")
    assert repository.outcome is Outcome.FAIL
    assert "triton.model_repository" in repository.remedy
