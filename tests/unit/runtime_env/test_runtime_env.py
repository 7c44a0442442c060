"""The model runtime: what is said where it cannot work, and that the requirement files fit together."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from modelium.errors import RuntimeMissing
from modelium.resources import templates_directory, triton_directory
from modelium.runtime_env import find_python, inspect, install
from modelium.runtime_env.inspection import numbers_of, platform_problems
from modelium.runtime_env.installation import Needs, fill, torch_source

ROOT = Path(__file__).resolve().parents[3]


def test_this_kind_of_machine_is_fine() -> None:
    assert platform_problems("linux", "x86_64", ("glibc", "2.36")) == ()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "word"),
    [
        ("linux", "aarch64", ("glibc", "2.39"), "aarch64"),
        ("darwin", "arm64", ("", ""), "darwin"),
        ("linux", "x86_64", ("glibc", "2.31"), "2.31"),
        ("linux", "x86_64", ("", ""), "another C library"),
    ],
)
def test_other_machines_are_told_why_and_what_else(system: str, machine: str, libc: tuple[str, str], word: str) -> None:
    (problem,) = platform_problems(system, machine, libc)
    assert word in problem.what and "`triton.mode: external`" in problem.remedy


def test_nothing_there(tmp_path: Path) -> None:
    report = inspect(tmp_path)
    assert report.python is None
    assert "`modelium runtime install`" in report.problems[0].remedy
    assert find_python(tmp_path) is None


def test_python_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text("no program")
    assert "does not start" in inspect(tmp_path).problems[0].what


def fake_python(directory: Path, answer: str) -> None:
    """An interpreter that says ``answer``, whatever it is asked."""
    (directory / "bin").mkdir(parents=True)
    python = directory / "bin/python3"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    python.chmod(0o755)


def test_each_defect_of_a_runtime_has_its_sentence(tmp_path: Path) -> None:
    site = tmp_path / "site"
    fake_python(
        tmp_path / "rt",
        f'{{"version": [3, 7], "site_packages": "{site}", "library": "", "places": [], "packages": {{"numpy": "2.1.0"}}}}',
    )
    problems = "\n".join(map(str, inspect(tmp_path / "rt").problems))
    assert "no tritonserver" in problems
    assert "package libpython3.7 (`apt install libpython3.7`)" in problems
    assert "numpy 2.1.0" in problems
    assert "lacks torch, transformers" in problems
    binary = site / "pytriton/tritonserver/bin/tritonserver"
    binary.parent.mkdir(parents=True)
    binary.write_text("")
    assert any("no stub for Python 3.7" in problem.what for problem in inspect(tmp_path / "rt").problems)


def test_foreign_directory_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RuntimeMissing, match=r"thesis\.tex"):
        install(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_unknown_extra_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissing, match="there are: ray, test, vllm"):
        install(tmp_path / "rt", extras=["tets"])


def test_torch_comes_from_the_users_wheels_only_if_they_have_it(tmp_path: Path) -> None:
    assert torch_source("", cuda=False) == ["--torch-backend=cpu"]
    assert torch_source("", cuda=True) == ["--torch-backend=auto"]
    assert torch_source(str(tmp_path), cuda=False) == ["--find-links", str(tmp_path), "--torch-backend=cpu"]
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").write_text("")
    assert torch_source(str(tmp_path), cuda=False) == ["--find-links", str(tmp_path)]
    assert "--torch-backend=auto" in torch_source(str(tmp_path), cuda=True)


def write_wheel(directory: Path, name: str) -> Path:
    """Of a package with one module."""
    path, about = directory / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "answer = 42\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def test_all_that_is_installed_is_compiled_before_a_model_imports_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "rt"], check=True)
    files = {name: tmp_path / f"{name}.txt" for name in ("base", "server", "constraints")}
    for name, file in files.items():
        file.write_text("" if name == "constraints" else f"{write_wheel(tmp_path, name)}\n")
    needs = Needs(requirements=(files["base"],), server=files["server"], overrides=(), constraints=files["constraints"])
    fill(Path(find_uv_bin()), tmp_path / "rt/bin/python", needs, cuda=False)
    compiled = {path.parts[-3] for path in tmp_path.glob("rt/lib/*/site-packages/*/__pycache__/__init__.*.pyc")}
    assert {"base", "server"} <= compiled


def requirement_names(file: Path) -> set[str]:
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return {re.split(r"[<>=;\[ ]", line, maxsplit=1)[0].lower() for line in lines if line}


def test_every_requirement_of_the_runtime_is_pinned() -> None:
    pins = requirement_names(triton_directory() / "constraints.txt")
    for name in ("base", "server", "test", "vllm-cpu", "vllm-cuda"):
        assert requirement_names(triton_directory() / f"requirements/{name}.txt") <= pins


@pytest.mark.parametrize("file", [ROOT / "constraints.txt", ROOT / "triton/constraints.txt"])
def test_constraints_are_exact_and_name_no_host_and_no_build(file: Path) -> None:
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9a-z.]+", line), line


def test_versions_are_compared_by_their_numbers() -> None:
    assert numbers_of("2.13.0+cpu") == (2, 13)
    assert numbers_of("") == ()


def test_resources_are_found_in_the_source_tree() -> None:
    assert templates_directory() == ROOT / "repository_templates"
    assert triton_directory() == ROOT / "triton"
