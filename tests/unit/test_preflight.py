"""What is said before anything is started: directories, the lock in the model repository, the ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelium.config import Settings
from modelium.errors import ConfigError, TritonError
from modelium.preflight import listeners, prepare_directories
from modelium.repository.claim import claim_repository
from modelium.triton.embedded import EmbeddedServer


def settings_in(directory: Path, watched: Path, **gateway: object) -> Settings:
    return Settings.model_validate(
        {
            "gateway": gateway,
            "metrics": {"enabled": False},
            "triton": {
                "model_repository": directory / "repository",
                "state_directory": directory / "state",
                "http_url": "127.0.0.1:0",
                "grpc_url": "127.0.0.1:0",
                "metrics_url": "127.0.0.1:0",
            },
            "orchestration": {"model_discovery": {"watch_directories": [watched]}},
        }
    )


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("repository", "is .*triton.model_repository"),
        ("repository/incoming", "lies in .*triton.model_repository"),
        (".", "contains .*triton.model_repository"),
        ("state/incoming", "lies in .*triton.state_directory"),
        ("file", "is, or lies in, a file"),
        ("file/below", "is, or lies in, a file"),
        ("link", "is .*triton.state_directory"),
        ("nowhere", "nowhere is a link that leads nowhere .to .*unmounted.: make what it leads to, or mount it"),
        ("nowhere/below", "below lies in .*nowhere, a link that leads nowhere .to .*unmounted.: make what it leads to"),
        ("round", "round is a link that leads nowhere"),
    ],
)
def test_a_watch_directory_that_cannot_be_one_is_refused(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "state")
    (tmp_path / "nowhere").symlink_to(tmp_path / "unmounted")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(ConfigError, match=words):
        prepare_directories(settings_in(tmp_path, tmp_path / place))


def test_a_watch_directory_is_made(tmp_path: Path) -> None:
    prepare_directories(settings_in(tmp_path, tmp_path / "a" / "incoming"))
    assert (tmp_path / "a" / "incoming").is_dir()


def test_a_second_modelium_on_one_repository_is_told_who_has_it(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\nfrom modelium.repository.claim import claim_repository\n"
        "with claim_repository(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "repository")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {other.pid} on "), claim_repository(tmp_path / "repository"):
            pass
        other.kill()
    with claim_repository(tmp_path / "repository"):
        assert [path.name for path in (tmp_path / "repository").iterdir()] == [".modelium.lock"]
    with claim_repository(tmp_path / "repository"):
        pass


async def test_a_port_that_is_taken_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = settings_in(tmp_path, tmp_path / "incoming", port=port)
        server = EmbeddedServer(settings.triton)
        try:
            with pytest.raises(
                TritonError, match=rf"port {port} for Modelium is taken by .*process {os.getpid()}.*gateway\.port"
            ):
                server.claim(listeners(settings))
        finally:
            await server.stop()
    same = EmbeddedServer(settings.triton.model_copy(update={"http_url": f"127.0.0.1:{port}"}))
    with pytest.raises(ConfigError, match="name the same port"):
        same.claim(listeners(settings))
    await same.stop()
