"""Which file is the configuration, and where an API key goes: a downloaded folder chooses neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelium.cli.invocation import Invocation
from modelium.config import load_settings
from modelium.config.finding import Found, find_config
from modelium.errors import ConfigError
from modelium.runtime_env import inspect

KEY = "key-of-the-tests-0123456789"
ELSEWHERE = "gateway: {host: 192.0.2.7, port: 80}\n"


def find(directory: Path, given: Path | None = None, **variables: str) -> Found:
    return find_config(given, variables=variables, directory=directory)


def test_what_is_given_counts_before_what_is_named_before_what_is_found(tmp_path: Path) -> None:
    assert find(tmp_path) == Found()
    (tmp_path / "modelium.yaml").touch(0o644)
    assert find(tmp_path) == Found(path=Path("modelium.yaml"))
    assert find(tmp_path, MODELIUM_CONFIG="/etc/m.yaml") == Found(path=Path("/etc/m.yaml"), given=True)
    assert find(tmp_path, Path("x.yaml"), MODELIUM_CONFIG="/etc/m.yaml") == Found(path=Path("x.yaml"), given=True)
    assert find(tmp_path, MODELIUM_CONFIG="") == Found(path=Path("modelium.yaml"))


@pytest.mark.parametrize(
    "sign",
    ["config.json", "model.safetensors", "pytorch_model.bin", "m.GGUF", "model.onnx", "adapter_config.json", "modules.json"],
)
def test_a_models_folder_is_no_place_for_the_configuration(tmp_path: Path, sign: str) -> None:
    (tmp_path / "modelium.yaml").write_text(ELSEWHERE)
    (tmp_path / sign).touch()
    found = find(tmp_path)
    assert found.path is None and sign in found.ignored and "--config modelium.yaml" in found.ignored
    assert find(tmp_path, tmp_path / "modelium.yaml").path == tmp_path / "modelium.yaml"


@pytest.mark.parametrize(("mode", "accepted"), [(0o600, True), (0o644, True), (0o646, False), (0o666, False)])
def test_what_others_may_write_is_an_error_and_not_the_defaults(tmp_path: Path, mode: int, accepted: bool) -> None:
    path = tmp_path / "modelium.yaml"
    path.touch()
    path.chmod(mode)
    if accepted:
        assert find(tmp_path).path == Path("modelium.yaml")
    else:
        with pytest.raises(ConfigError, match=r"written by everybody.*--config modelium\.yaml.*\$MODELIUM_CONFIG"):
            find(tmp_path)


def test_what_its_group_may_write_counts_only_where_the_user_is_alone_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "modelium.yaml"
    path.touch()
    path.chmod(0o664)
    assert find(tmp_path).path == Path("modelium.yaml"), "as with Ubuntu's umask"
    monkeypatch.setattr("grp.getgrgid", lambda group: (_ for _ in ()).throw(KeyError(group)))
    if path.stat().st_gid:
        with pytest.raises(ConfigError, match="by its group"):
            find(tmp_path)


def test_what_belongs_to_somebody_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "modelium.yaml"
    path.touch(0o644)
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        find(tmp_path)


# -- where an API key goes -----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELIUM_API_KEY", KEY)
    for name in ("MODELIUM_URL", "MODELIUM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def invoke(config: Path | None = None, url: str | None = None, api_key_file: Path | None = None) -> Invocation:
    return Invocation(config=config, url=url, api_key_file=api_key_file)


def test_a_key_is_not_sent_where_only_a_file_that_was_found_points(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "modelium.yaml").write_text(ELSEWHERE)
    (here / "key").write_text(KEY)
    remote = invoke().remote()
    assert (remote.url, remote.sends_a_key) == ("http://192.0.2.7:80", False)
    assert "modelium.yaml" in capsys.readouterr().err
    assert not invoke(api_key_file=here / "key").remote().sends_a_key
    (here / "modelium.yaml").write_text(f"gateway: {{host: 192.0.2.7, api_keys_file: {here / 'key'}}}\n")
    assert not invoke().remote().sends_a_key, "a found file does not choose what is sent either"


def test_a_key_is_sent_to_an_address_that_was_given_and_to_this_machine(here: Path) -> None:
    assert invoke().remote().sends_a_key
    assert invoke(url="http://192.0.2.7").remote().sends_a_key
    (here / "modelium.yaml").write_text(ELSEWHERE)
    assert invoke(config=here / "modelium.yaml").remote().sends_a_key
    for host in ("127.0.0.1", "localhost", "0.0.0.0", '"::"', '"::1"'):
        (here / "modelium.yaml").write_text(f"gateway: {{host: {host}, port: 8090}}\n")
        assert invoke().remote().sends_a_key, host


def test_a_key_is_sent_where_the_environment_names_the_gateway(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "modelium.yaml").write_text("gateway: {host: 192.0.2.8}\n")
    monkeypatch.setenv("MODELIUM__GATEWAY__HOST", "192.0.2.7")
    remote = invoke().remote()
    assert (remote.url, remote.sends_a_key) == ("http://192.0.2.7:8080", True)


def test_a_verb_in_a_models_folder_says_whose_file_it_leaves_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "modelium.yaml").write_text(ELSEWHERE)
    (here / "config.json").write_text("{}")
    remote = invoke().remote()
    assert (remote.url, remote.sends_a_key) == ("http://127.0.0.1:8080", True)
    assert capsys.readouterr().err.count("a model's folder (config.json)") == 1
    assert load_settings().gateway.host == "127.0.0.1"
    with pytest.raises(ConfigError, match="serve from another directory"):
        invoke().settings(to_serve=True)


def test_what_lies_in_a_models_folder_is_not_run(tmp_path: Path) -> None:
    python = tmp_path / "model" / ".runtime" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    python.chmod(0o755)
    (tmp_path / "model" / "config.json").touch()
    report = inspect(tmp_path / "model" / ".runtime")
    assert "lies in a model's folder (config.json)" in report.problems[-1].what
    assert not (tmp_path / "ran").exists()
