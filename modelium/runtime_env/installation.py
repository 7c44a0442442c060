"""Making a runtime: a directory and ``triton/requirements/`` enter, an environment made by uv leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelium.errors import RuntimeMissing
from modelium.resources import triton_directory
from modelium.runtime_env.inspection import (
    EXTERNAL,
    RuntimeReport,
    ask_interpreter,
    dotted,
    find_python,
    inspect,
    machine_problems,
    no_library,
    no_stub,
)

STUB_MINORS = frozenset((3, minor) for minor in range(8, 14))  # nvidia-pytriton 0.7.0 carries a stub for each
_STAMP = ".modelium-runtime.json"
_UNDER_WAY = ".modelium-installing"
_ENVIRONMENT_NAMES = frozenset(
    {"bin", "lib", "lib64", "include", "share", "pyvenv.cfg", ".gitignore", ".lock", "CACHEDIR.TAG", _STAMP, _UNDER_WAY}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The files under ``triton/`` that say what a runtime holds."""

    requirements: tuple[Path, ...]
    server: Path
    overrides: tuple[Path, ...]
    constraints: Path

    def digests(self) -> dict[str, str]:
        """File name → digest of its content."""
        files = (*self.requirements, self.server, *self.overrides, self.constraints)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def install(
    directory: Path, *, extras: Sequence[str] = (), python: str | None = None, accelerator: str = "auto"
) -> RuntimeReport:
    """Make or complete the runtime in ``directory``; nothing is done when it is as the requirements say.

    ``extras`` are names of files in ``triton/requirements/``: ``test``, and ``vllm``, which is ``vllm-cpu`` or ``vllm-cuda``
    by the accelerator. ``python``: a version or an interpreter, else the
    version that runs now. ``accelerator``: ``cpu``, ``cuda`` or ``auto`` (CUDA where this machine has an NVIDIA GPU). uv
    shows its own progress. Raises ``RuntimeMissing`` with what to do.
    """
    for problem in machine_problems():
        raise RuntimeMissing(str(problem))
    minor = sys.version_info[:2]
    if python is None and minor not in STUB_MINORS:
        raise RuntimeMissing(str(no_stub(minor)))
    cuda = accelerator == "cuda" or (accelerator == "auto" and has_nvidia_gpu())
    needs = _read_needs(extras, build="cuda" if cuda else "cpu")
    stamp = directory / _STAMP
    done = _read_stamp(stamp)
    wanted = needs.digests() | {"accelerator": "cuda" if cuda else "cpu", "python": python or dotted(minor)}
    if wanted.items() <= done.items():  # more extras than asked for are no reason to do anything
        report = inspect(directory)
        if not report.problems:
            return report
    uv = _find_uv()
    under_way = directory / _UNDER_WAY
    target = find_python(directory)
    # An interrupted install may have left packages that look whole, and the other build of torch has the same version: then
    # begin again (what was fetched before is in uv's cache).
    other_build = done.get("accelerator", wanted["accelerator"]) != wanted["accelerator"]
    if target is None or under_way.exists() or other_build or not _is_version(target, python or dotted(minor)):
        target = _make_environment(uv, directory, python)
        done = {}
    stamp.unlink(missing_ok=True)
    under_way.touch()
    fill(uv, target, needs, cuda=cuda)
    report = inspect(directory)
    if report.problems:
        raise RuntimeMissing("\n".join(map(str, report.problems)))
    if not _common(wanted).items() <= done.items():
        done = {}  # extras installed before may not fit any more
    stamp.write_text(json.dumps(done | wanted, indent=1) + "\n", encoding="utf-8")
    under_way.unlink()
    return report


def fill(uv: Path, target: Path, needs: Needs, *, cuda: bool) -> None:
    """Install into the environment of the interpreter ``target`` what it needs, and compile it.

    What is not compiled is compiled when it is imported, by the first model that does so: 30 s for vLLM.
    """
    pip: list[str | Path] = [uv, "pip", "install", "--compile-bytecode", "--python", target]
    pip += ["--constraints", needs.constraints]
    chosen: list[str | Path] = [part for file in needs.requirements for part in ("--requirements", file)]
    chosen += [part for file in needs.overrides for part in ("--overrides", file)]
    _run([*pip, *chosen, *torch_source(os.environ.get("PIP_FIND_LINKS", ""), cuda=cuda)])
    # Alone and without its dependencies: it would bring an old tritonclient and companions that only PyTriton uses.
    _run([*pip, "--no-deps", "--requirements", needs.server])


def has_nvidia_gpu() -> bool:
    """Does this machine have an NVIDIA GPU with a working driver?"""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return False
    try:
        seen = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return seen.returncode == 0 and "GPU " in seen.stdout


def torch_source(find_links: str, *, cuda: bool) -> list[str]:
    """Where torch comes from: uv knows the index of each build, unless the user's own wheels (``PIP_FIND_LINKS``) have it."""
    places = find_links.split()
    links = [part for place in places for part in ("--find-links", place)]
    if not cuda and any("://" in place or any(Path(place).glob("torch-*.whl")) for place in places):
        return links
    return [*links, f"--torch-backend={'auto' if cuda else 'cpu'}"]


def _read_needs(extras: Sequence[str], *, build: str) -> Needs:
    triton = triton_directory()
    requirements = triton / "requirements"
    chosen = [requirements / "base.txt"]
    for name in extras:
        files = [file for file in (requirements / f"{name}.txt", requirements / f"{name}-{build}.txt") if file.is_file()]
        if not files:
            stems = {path.stem.removesuffix("-cpu").removesuffix("-cuda") for path in requirements.glob("*.txt")}
            known = sorted(stems - {"base", "server", "overrides"})
            raise RuntimeMissing(f"the model runtime has no extra {name!r}; there are: {', '.join(known)}")
        chosen += files
    return Needs(
        requirements=tuple(chosen),
        server=requirements / "server.txt",
        overrides=tuple(requirements / name for name in ("overrides.txt", *(["overrides-cpu.txt"] if build == "cpu" else []))),
        constraints=triton / "constraints.txt",
    )


def _make_environment(uv: Path, directory: Path, python: str | None) -> Path:
    foreign = sorted({path.name for path in directory.iterdir()} - _ENVIRONMENT_NAMES) if directory.is_dir() else []
    if foreign:
        # uv would clear the whole directory.
        raise RuntimeMissing(
            f"{directory} is no Python environment (it holds {foreign[0]}): choose another `triton.runtime_directory`"
        )
    venv: list[str | Path] = [uv, "venv", "--no-project", "--clear"]
    if python is not None:
        _run([*venv, "--python", python, directory])
    else:
        minor = sys.version_info[:2]
        # Below this environment, so that the runtime does not hang on it.
        base = Path(sys.base_prefix) / "bin" / f"python{dotted(minor)}"
        seen = ask_interpreter(base)
        if seen is not None and seen.library is not None:
            _run([*venv, "--python", base, directory])
        else:
            try:  # a Python of uv's own has the library, Debian's and Ubuntu's has it in another package
                _run([*venv, "--managed-python", "--python", dotted(minor), directory])
            except RuntimeMissing as error:
                raise RuntimeMissing(f"{no_library(minor)}\n({error})") from error
    target = find_python(directory)
    if target is None:
        raise RuntimeMissing(f"uv made no Python environment in {directory}, {EXTERNAL}")
    return target


def _is_version(python: Path, wanted: str) -> bool:
    seen = ask_interpreter(python)
    if seen is None:
        return False
    parts = wanted.split(".")
    return not all(part.isdigit() for part in parts) or tuple(map(int, parts[:2])) == seen.minor


def _find_uv() -> Path:
    try:
        from uv import find_uv_bin  # the binary of this very environment

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise RuntimeMissing("uv was not found: `pip install uv` into Modelium's own environment")
    return Path(found)


def _run(command: Sequence[str | Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, env=environment, check=False)
    except OSError as error:
        raise RuntimeMissing(f"uv does not start: {error}") from error
    if done.returncode != 0:
        words = " ".join(map(str, command[1:]))
        raise RuntimeMissing(f"uv could not make the model runtime, its own words are above; the command was: uv {words}")


def _common(stamp: dict[str, str]) -> dict[str, str]:
    return {key: stamp[key] for key in ("base.txt", "server.txt", "overrides.txt", "constraints.txt", "accelerator", "python")}


def _read_stamp(path: Path) -> dict[str, str]:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}
