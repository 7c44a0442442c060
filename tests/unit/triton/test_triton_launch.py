"""How the embedded server is started: addresses, backend directory, command line and environment, without starting it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from modelium.errors import ConfigError, TritonError
from modelium.guarded.addresses import Address, claim_addresses, parse_address
from modelium.guarded.guardian import RUN_MARK
from modelium.runtime_env import RuntimeReport
from modelium.triton.backends import compose_backends
from modelium.triton.launch import Launch, command_line, hidden_arguments, server_environment


def test_addresses_are_read() -> None:
    assert parse_address("127.0.0.1:8000", "k") == Address(host="127.0.0.1", port=8000)
    assert parse_address("http://localhost:80/", "k") == Address(host="localhost", port=80)
    assert str(parse_address("[::1]:8000", "k")) == "[::1]:8000"


@pytest.mark.parametrize("url", ["", "localhost", ":80", "a:b", "a:70000", "8000"])
def test_word_that_is_no_address_names_its_key(url: str) -> None:
    with pytest.raises(ConfigError, match=r"triton\.http_url"):
        parse_address(url, "triton.http_url")


def test_port_zero_becomes_a_free_port_of_its_own() -> None:
    claimed = claim_addresses({"a": "127.0.0.1:0", "b": "127.0.0.1:0", "c": "127.0.0.1:0"})
    assert len({address.port for address in claimed.values()} - {0}) == 3
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(address.port < lowest for address in claimed.values()), "an outgoing connection may take it meanwhile"


def test_taken_port_is_reported_with_its_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TritonError, match=rf"port {port} .*process {os.getpid()}.*`triton\.metrics_url`"):
            claim_addresses({"triton.http_url": "127.0.0.1:0", "triton.metrics_url": f"127.0.0.1:{port}"})
    claim_addresses({"triton.metrics_url": f"127.0.0.1:{port}"})


def test_one_port_for_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="same port"):
        claim_addresses({"a": "127.0.0.1:18555", "b": "127.0.0.1:18555"})


def test_foreign_host_is_explained() -> None:
    with pytest.raises(TritonError, match="`k`"):
        claim_addresses({"k": "192.0.2.1:8000"})  # TEST-NET: nobody's own


@pytest.fixture
def report(tmp_path: Path) -> RuntimeReport:
    """A runtime as the wheel lays it out, with empty files."""
    site = tmp_path / "runtime/lib/python3.11/site-packages"
    server = site / "pytriton/tritonserver"
    stub = server / "python_backend_stubs/3.11/triton_python_backend_stub"
    for file in (server / "bin/tritonserver", stub, server / "backends/python/libtriton_python.so"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
        file.chmod(0o644)
    return RuntimeReport(
        directory=tmp_path / "runtime",
        python=tmp_path / "runtime/bin/python3",
        python_minor=(3, 11),
        site_packages=site,
        tritonserver=server / "bin/tritonserver",
        stub=stub,
        libpython_directory=tmp_path / "python/lib",
    )


def compose(report: RuntimeReport, tmp_path: Path) -> frozenset[str]:
    assert report.tritonserver is not None and report.stub is not None
    (tmp_path / "nursery").mkdir(exist_ok=True)
    return compose_backends(
        tmp_path / "state/backends",
        tritonserver=report.tritonserver,
        stub=report.stub,
        python_backends=tmp_path / "ours",
        nursery=tmp_path / "nursery",
    )


def test_backend_directory_has_the_stub_with_its_run_bits_and_our_backends(tmp_path: Path, report: RuntimeReport) -> None:
    ours = tmp_path / "ours"
    (ours / "onnxruntime/__pycache__").mkdir(parents=True)
    (ours / "onnxruntime/model.py").write_text("one")
    (ours / "not-a-backend").mkdir()

    assert compose(report, tmp_path) == {"python", "onnxruntime"}

    made = tmp_path / "state/backends"
    assert os.access(made / "python/triton_python_backend_stub", os.X_OK)
    assert (made / "python/libtriton_python.so").is_file()
    assert sorted(path.name for path in (made / "onnxruntime").iterdir()) == ["model.py", "nursery"]
    assert report.stub is not None and not os.access(report.stub, os.X_OK)  # the source is not ours to change
    assert report.stub.stat().st_ino != (made / "python/triton_python_backend_stub").stat().st_ino


def test_backend_directory_is_refreshed_when_a_source_changes_and_only_then(tmp_path: Path, report: RuntimeReport) -> None:
    backend = tmp_path / "ours/onnxruntime/model.py"
    backend.parent.mkdir(parents=True)
    backend.write_text("one")
    compose(report, tmp_path)
    made = tmp_path / "state/backends/onnxruntime/model.py"
    inode = made.stat().st_ino
    compose(report, tmp_path)
    assert made.stat().st_ino == inode
    backend.write_text("three")
    compose(report, tmp_path)
    assert made.read_text() == "three"


def launch_in(tmp_path: Path) -> Launch:
    return Launch(
        http=Address(host="127.0.0.1", port=1),
        grpc=Address(host="127.0.0.1", port=2),
        metrics=Address(host="127.0.0.1", port=3),
        model_repository=tmp_path / "repository",
        backends=tmp_path / "backends",
        shm_prefix="modelium_x_",
        secret="s3cret",
    )


def test_command_line_is_what_the_facts_argue_for(tmp_path: Path, report: RuntimeReport) -> None:
    flags = command_line(report, launch_in(tmp_path))
    assert flags[0] == str(report.tritonserver)
    for flag in (
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        "--http-port=1",
        "--grpc-port=2",
        "--metrics-port=3",
        "--http-address=127.0.0.1",
        "--backend-config=python,shm-region-prefix-name=modelium_x_",
    ):
        assert flag in flags


def test_what_ps_shows_has_no_secret_and_the_server_gets_it(tmp_path: Path, report: RuntimeReport) -> None:
    launch = launch_in(tmp_path)
    shown, hidden = command_line(report, launch), hidden_arguments(launch)
    assert launch.secret not in " ".join(shown) + repr(launch)
    assert set(hidden) <= set(shown) and len(hidden) == 2
    assert all(argument.endswith(f":modelium={launch.secret}") for argument in hidden.values())


def test_environment_is_what_is_needed_and_what_the_user_chose(
    tmp_path: Path, report: RuntimeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"HOME": "/h", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    secret = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "HF_TOKEN": "x",
        "HF_HUB_TOKEN": "x",
        "VLLM_API_KEY": "x",
        "MODELIUM_API_KEY": "x",
        "GITHUB_PAT": "x",
        "http_proxy": "http://me:word@proxy",
        "RAY_AUTH_TOKEN": "x",
        "SSH_AUTH_SOCK": "/s",
    }
    for name, value in (kept | secret | {"MINE": "mine", "NOBODYS": "x"}).items():
        monkeypatch.setenv(name, value)
    chosen: dict[str, str | None] = {
        "MINE": None,
        "HF_HUB_OFFLINE": "0",
        "ABSENT": None,
        "PATH": "/bin",
        "VIRTUAL_ENV": "/other",
    }
    environment = server_environment(report, tmp_path / "state", chosen)
    assert environment.items() >= (kept | {"MINE": "mine", "HF_HUB_OFFLINE": "0", "TOKENIZERS_PARALLELISM": "false"}).items()
    assert not environment.keys() & {*secret, "NOBODYS", "ABSENT"}
    assert environment["PATH"] == f"{tmp_path}/runtime/bin:/bin" and environment["VIRTUAL_ENV"] == f"{tmp_path}/runtime"
    assert server_environment(report, tmp_path, {"HF_TOKEN": None})["HF_TOKEN"] == "x"


def test_what_engines_compile_is_kept_in_the_state_directory_unless_the_user_says_where(
    tmp_path: Path, report: RuntimeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/fast/triton")
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    environment = server_environment(report, tmp_path, {"TORCHINDUCTOR_CACHE_DIR": "/fast/inductor"})
    assert environment["VLLM_CACHE_ROOT"] == str(tmp_path / "cache" / "vllm")
    assert environment["TRITON_CACHE_DIR"] == "/fast/triton"
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == "/fast/inductor"


def test_environment_has_the_runtime_first(tmp_path: Path, report: RuntimeReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/cuda")
    monkeypatch.setenv(RUN_MARK, "of the run that started this one")
    environment = server_environment(report, tmp_path / "state")
    assert environment["PATH"] == f"{tmp_path}/runtime/bin:/usr/bin"
    assert environment["LD_LIBRARY_PATH"] == f"{report.site_packages}/nvidia_pytriton.libs:{tmp_path}/python/lib:/cuda"
    assert environment["VIRTUAL_ENV"] == f"{tmp_path}/runtime"
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["SHELL"]  # else the titles of vLLM's processes are lost
    assert RUN_MARK not in environment
    assert "PYTHONPATH" not in environment
