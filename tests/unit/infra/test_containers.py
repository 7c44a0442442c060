"""The images: Dockerfiles as hadolint reads them and as the code needs them, and the entrypoint of Triton's under bash.

Programs that stand in for tritonserver and ray show what they are given; tests/server/test_external_by_compose.py runs the same
script with a real Triton.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from modelium.brain.engine.args import VLLM_VERSIONS
from modelium.guarded.addresses import Address
from modelium.runtime_env import RuntimeReport
from modelium.triton.launch import Launch, command_line, hidden_arguments, server_environment
from tests.deployment import ROOT, tool
from tests.dockerfiles import last, read_dockerfile, read_environment
from tests.patience import PATIENCE_S

TRITON, CONTROLLER = ROOT / "triton" / "Dockerfile", ROOT / "infra" / "modelium" / "Dockerfile"
of_every_dockerfile = pytest.mark.parametrize("path", [TRITON, CONTROLLER], ids=["triton", "modelium"])


# -- Dockerfiles ---------------------------------------------------------------------------------------------------


@of_every_dockerfile
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = subprocess.run(
        [tool("hadolint", "make setup"), "--no-color", path], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@of_every_dockerfile
def test_every_base_is_pinned(path: Path) -> None:
    stages = set()
    for one in (one for one in read_dockerfile(path) if one.word == "FROM"):
        image, *named = one.rest.split(" AS ")
        assert image in stages or re.search(r":[0-9][\w.-]*\d[\w.-]*$", image), image
        stages |= set(named)


@of_every_dockerfile
def test_everything_that_is_copied_is_there_and_not_ignored(path: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    for one in (one for one in read_dockerfile(path) if one.word == "COPY" and "from" not in one.options):
        for source in one.operands[:-1]:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in allowed, f"{source} is not let through by .dockerignore"


def test_no_secret_and_no_model_gets_into_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines, "nothing but what is named"
    assert not {"!models", "!.env", "!.git", "!.venv", "!.runtime", "!infra"} & set(lines)


@of_every_dockerfile
def test_it_runs_as_nobody_in_particular_and_says_how_it_is(path: Path) -> None:
    instructions = read_dockerfile(path)
    assert last(instructions, "USER").rest == "1000:1000"
    assert "127.0.0.1" in " ".join(last(instructions, "HEALTHCHECK").command)


def test_models_find_the_environment_that_the_embedded_server_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    given = server_environment(report_of(Path("/x")), Path("/state"))
    image = read_environment(read_dockerfile(TRITON))
    for name in given.keys() - {"PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "MODELIUM_RAY_FILE", "MODELIUM_NURSERY"}:
        assert image.get(name) == given[name].replace("/state/cache/", "/cache/"), name


def test_the_containers_vllm_has_its_arguments_recorded() -> None:
    """The comment beside the base image says which vLLM is in it; entries are written for that one too."""
    said = re.search(r"whose vLLM \(([\d.]+)\)", TRITON.read_text(encoding="utf-8"))
    assert said is not None and said[1] in VLLM_VERSIONS


def test_what_the_image_adds_is_what_entries_need() -> None:
    """Each of the model runtime's requirements is added, pinned, or in NVIDIA's image; both are imported at the build."""
    lines = (ROOT / "triton" / "container" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    added = {line for line in lines if line and not line.startswith("#")}
    assert all("==" in line for line in added)
    base = (ROOT / "triton" / "requirements" / "base.txt").read_text(encoding="utf-8")
    needed = {re.split(r"[<>=]", line)[0] for line in base.splitlines() if line and not line.startswith("#")}
    imports = {"pillow": "PIL", "protobuf": "google.protobuf"}
    imported = {name for one in read_dockerfile(TRITON) if one.word == "RUN" for name in re.findall(r'"([\w.]+)"', one.rest)}
    assert {imports.get(name, name) for name in needed} <= imported


def test_the_image_has_what_models_on_ray_need_in_a_version_that_was_tested() -> None:
    """In ranges, because NVIDIA's image may have one already; the model runtime's version is in each."""
    tested = dict(line.split("==") for line in _lines(ROOT / "triton" / "constraints.txt") if "==" in line)
    ranges = [Requirement(line) for line in _lines(ROOT / "triton" / "container" / "ray-models.txt")]
    for each in ranges:
        assert each.specifier.contains(tested[each.name]), each
    ray = ROOT / "triton" / "requirements"
    needed = {Requirement(line).name for name in ("ray.txt", "ray-cpu.txt") for line in _lines(ray / name)}
    assert {each.name for each in ranges} >= needed - {"ray"}


def _lines(path: Path) -> list[str]:
    """Without comments."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


# -- the entrypoint of Triton's image ------------------------------------------------------------------------------


def report_of(directory: Path) -> RuntimeReport:
    return RuntimeReport(
        directory=directory,
        python=directory / "bin" / "python",
        python_minor=(3, 11),
        packages={},
        site_packages=directory / "site-packages",
        tritonserver=directory / "bin" / "tritonserver",
        stub=directory / "stub",
        libpython_directory=None,
        problems=(),
    )


def serve(
    directory: Path, *arguments: str, tritonserver: str, ray: str = "exit 9", environment: Mapping[str, str] | None = None
) -> Any:
    """serve.sh as a process, with programs of these bodies in the places of tritonserver and ray."""
    for name, body in (("tritonserver", tritonserver), ("ray", ray)):
        program = directory / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        program.chmod(0o755)
    (directory / "repository").mkdir(exist_ok=True)
    return subprocess.Popen(
        ["bash", ROOT / "triton" / "container" / "serve.sh", *arguments],
        cwd=directory,
        env={"PATH": f"{directory / 'bin'}:/usr/bin:/bin", "MODEL_REPOSITORY": str(directory / "repository")}
        | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch_in(directory: Path) -> Launch:
    """As Modelium starts its own server, on the container's ports."""
    addresses = {name: Address(host="0.0.0.0", port=port) for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002))}
    return Launch(**addresses, model_repository=directory / "repository", backends=Path("/b"), shm_prefix="p", secret="s")


# A server that says that it is up, takes a moment to finish what is in flight, and says that it did.
DRAINING = "trap 'sleep 0.3; echo drained; exit 0' TERM\necho up\nwhile true; do sleep 0.05; done"


def test_its_flags_are_the_embedded_servers(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of-the-file\n", encoding="utf-8")
    process = serve(
        tmp_path,
        "--log-verbose=1",
        tritonserver='printf "%s\\n" "$@" ${TRITON_SECRET+"a secret was left to the models"}',
        environment={"TRITON_SECRET_FILE": str(tmp_path / "secret")},
    )
    flags = process.communicate(timeout=PATIENCE_S)[0].splitlines()
    launch = replace(launch_in(tmp_path), secret="of-the-file")
    hidden = hidden_arguments(launch)
    embedded = [hidden.get(flag, flag) for flag in command_line(report_of(tmp_path), launch)]
    only_embedded = ("--backend-directory=", "--exit-timeout-secs=", "--backend-config=python,shm-region-prefix-name=")
    wanted = {flag for flag in embedded[1:] if not flag.startswith(only_embedded)}
    assert set(flags) == wanted | {"--exit-timeout-secs=20", "--log-verbose=1"}
    assert flags[-1] == "--log-verbose=1", "what the user adds comes last, and wins"


def test_a_secret_locks_its_apis_and_without_one_they_are_open(tmp_path: Path) -> None:
    shown = 'printf "%s\\n" "$@" ${TRITON_SECRET+"a secret was left to the models"}'
    for given in ({"TRITON_SECRET": "of-the-environment"}, {"TRITON_SECRET": ""}, {}):
        flags = serve(tmp_path, tritonserver=shown, environment=given).communicate(timeout=PATIENCE_S)[0].splitlines()
        locked = [flag for flag in flags if "restricted" in flag]
        assert len(locked) == (2 if given.get("TRITON_SECRET") else 0)
        assert all(flag.endswith(":modelium=of-the-environment") for flag in locked)
        assert not any("secret was left" in flag for flag in flags)


def test_its_addresses_and_ports_can_be_chosen(tmp_path: Path) -> None:
    chosen = {"TRITON_ADDRESS": "127.0.0.1", "TRITON_HTTP_PORT": "1", "TRITON_GRPC_PORT": "2", "TRITON_METRICS_PORT": "3"}
    flags = (
        serve(tmp_path, tritonserver='printf "%s\\n" "$@"', environment=chosen).communicate(timeout=PATIENCE_S)[0].splitlines()
    )
    assert {"--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=0.0.0.0"} <= set(flags)
    assert {"--http-port=1", "--grpc-port=2", "--metrics-port=3"} <= set(flags)


def test_told_to_stop_it_lets_the_server_finish(tmp_path: Path) -> None:
    process = serve(tmp_path, tritonserver=DRAINING)
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.communicate(timeout=PATIENCE_S)[0] == "drained\n"
    assert process.returncode == 0


@pytest.mark.parametrize("code", [0, 3])
def test_a_server_that_ends_by_itself_ends_the_container_with_its_code(tmp_path: Path, code: int) -> None:
    process = serve(tmp_path, tritonserver=f"exit {code}")
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code


def test_it_waits_for_the_repository_that_modelium_makes(tmp_path: Path) -> None:
    process = serve(tmp_path, tritonserver="echo up", environment={"MODEL_REPOSITORY": str(tmp_path / "later")})
    assert "waiting for Modelium to make it" in process.stdout.readline()
    (tmp_path / "later").mkdir()
    assert process.communicate(timeout=PATIENCE_S)[0] == "up\n"
    waiting = serve(tmp_path, tritonserver="echo up", environment={"MODEL_REPOSITORY": str(tmp_path / "never")})
    assert "never is not there yet" in waiting.stdout.readline()
    waiting.terminate()
    assert waiting.communicate(timeout=PATIENCE_S)[0] == ""
    assert waiting.returncode == 0


def test_it_joins_a_ray_cluster_and_brings_nothing_along(tmp_path: Path) -> None:
    """And leaves it after the server has ended, whose models may still have something to say to it."""
    joined = 'trap \'echo "ray left" >> log; exit 0\' TERM\necho "ray $*" >> log\nwhile true; do sleep 0.05; done'
    server = f"until [ -s log ]; do sleep 0.02; done\n{DRAINING}".replace("echo drained", "echo drained >> log")
    process = serve(tmp_path, tritonserver=server, ray=joined, environment={"RAY_ADDRESS": "ray:6379"})
    assert process.stdout.readline() == "up\n"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines() == [
        "ray start --address=ray:6379 --num-cpus=0 --num-gpus=0 --memory=0 --object-store-memory=268435456 "
        "--disable-usage-stats --block",
        "drained",
        "ray left",
    ]


def test_a_ray_cluster_that_is_not_there_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    process = serve(tmp_path, tritonserver=DRAINING, ray="exit 1", environment={"RAY_ADDRESS": "ray:6379"})
    said = {process.stdout.readline(), process.stdout.readline()}
    assert said == {"up\n", "serve.sh: not in the Ray cluster at ray:6379; trying again in 5 s\n"}
    process.terminate()
    assert process.communicate(timeout=PATIENCE_S)[0] == "drained\n"
