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


@pytest.mark.parametrize(
    ("state", "repository", "words"),
    [
        ("with space/state", "repository", "triton.state_directory: .* has ' ' in it"),
        ("state", "re(pository", "triton.model_repository: .* has '\\(' in it"),
        ("über/state", "repository", "triton.state_directory: .* has 'ü' in it"),
        ("state", "$HOME", "triton.model_repository: .* has '\\$' in it"),
    ],
)
def test_a_path_that_tritons_python_backend_cannot_read_is_refused(
    tmp_path: Path, state: str, repository: str, words: str
) -> None:
    settings = settings_in(tmp_path, tmp_path / "in coming")
    placed = {"state_directory": tmp_path / state, "model_repository": tmp_path / repository}
    odd = settings.model_copy(update={"triton": settings.triton.model_copy(update=placed)})
    with pytest.raises(ConfigError, match=words):
        prepare_directories(odd)
    elsewhere = odd.model_copy(update={"triton": odd.triton.model_copy(update={"mode": "external"})})
    prepare_directories(elsewhere)


def test_grpc_is_told_of_subprocesses_before_it_is_imported() -> None:
    program = (
        "import os, sys\nclass Finder:\n    @staticmethod\n    def find_spec(name, *_):\n"
        "        if name == 'grpc':\n            print(os.environ.get('GRPC_ENABLE_FORK_SUPPORT'))\n"
        "sys.meta_path.insert(0, Finder)\nimport modelium.app"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0"]


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
