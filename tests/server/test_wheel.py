"""The wheel is whole: built, installed into an environment of its own, it finds its templates, backends and requirements."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from uv import find_uv_bin

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ("repository_templates", "triton")


def uv_environment() -> dict[str, str]:
    """uv does not read pip's variables: where wheels and certificates are is handed on."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    for uv_name, pip_name in (
        ("UV_FIND_LINKS", "PIP_FIND_LINKS"),
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
        ("SSL_CERT_FILE", "PIP_CERT"),
    ):
        if pip_name in environment:
            environment.setdefault(uv_name, environment[pip_name].replace(" ", ","))
    return environment


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(find_uv_bin(), "build", "--wheel", "--out-dir", out, ROOT, cwd=out, environment=uv_environment())
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that has the wheel and what it requires."""
    directory = tmp_path_factory.mktemp("installed")
    environment = uv_environment()
    uv = find_uv_bin()
    run(uv, "venv", "--python", sys.executable, "--no-project", directory / "venv", cwd=directory, environment=environment)
    python = directory / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(uv, "pip", "install", "--python", python, "--constraints", constraints, wheel, cwd=directory, environment=environment)
    return python.parent


def test_the_wheel_carries_every_file_of_the_templates_and_of_triton(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for folder in CARRIED:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"modelium/_resources/{path.relative_to(ROOT)}" in held
    assert not [name for name in held if name.startswith(("tests/", "bench/", "scripts/")) or "__pycache__" in name]


def test_the_installed_package_is_not_the_source_tree(installed: Path, tmp_path: Path) -> None:
    code = "import modelium.resources as r; print(r.__file__); print(r.templates_directory()); print(r.triton_directory())"
    for line in run(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert line.startswith(str(installed.parent))
        assert Path(line).exists()


def test_help_and_configuration_work_when_installed(installed: Path, tmp_path: Path) -> None:
    assert "serve" in run(installed / "modelium", "--help", cwd=tmp_path)
    run(installed / "modelium", "config", "--check", cwd=tmp_path)


def test_an_entry_is_rendered_when_installed(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n")
    header = json.dumps({"embeddings.weight": {"dtype": "F32", "shape": [10, 8], "data_offsets": [0, 320]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(320))
    run(installed / "modelium", "render", folder, "--out", tmp_path / "out", cwd=tmp_path)
    assert "EMBEDDING" in (tmp_path / "out" / "tiny" / "config.pbtxt").read_text()
    assert (tmp_path / "out" / "tiny" / "1" / "model.py").is_file()


def test_serve_says_what_to_do_when_there_is_no_runtime(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODELIUM__")} | {
        "MODELIUM__GATEWAY__PORT": "0",
        "MODELIUM__GATEWAY__GRPC_PORT": "0",
        "MODELIUM__METRICS__PORT": "0",
        "MODELIUM__TRITON__HTTP_URL": "127.0.0.1:0",
        "MODELIUM__TRITON__GRPC_URL": "127.0.0.1:0",
        "MODELIUM__TRITON__METRICS_URL": "127.0.0.1:0",
    }
    done = subprocess.run(
        [installed / "modelium", "serve"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "modelium runtime install" in done.stderr and "Traceback" not in done.stderr
