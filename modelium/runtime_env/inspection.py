"""Looking at a runtime: a directory enters, a ``RuntimeReport`` leaves. Nothing is changed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelium.config.finding import sign_of_a_model
from modelium.values import Problem

GLIBC_NEEDED = (2, 35)
INSTALL = "`modelium runtime install` makes it"
EXTERNAL = "or connect to a Triton of your own with `triton.mode: external`"

# Asked of an interpreter: where its shared library may lie, and what is installed.
_PROBE = """
import importlib.metadata as m, json, sys, sysconfig as s
v = s.get_config_var
libdir = v("LIBDIR") or ""
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "site_packages": s.get_path("purelib"),
    "library": v("INSTSONAME") or "",
    "places": [p for p in (libdir, libdir + "/" + (v("MULTIARCH") or ""), sys.base_prefix + "/lib",
                           sys.base_prefix + "/lib64", v("LIBPL")) if p],
    "packages": {d.name.lower().replace("_", "-"): d.version for d in m.distributions()},
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What a Python says about itself. ``library``: the directory of its ``libpython3.X.so.1.0``, None when it has none."""

    minor: tuple[int, int]
    site_packages: Path
    library: Path | None
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    """What a runtime directory holds. Without ``problems`` it can serve."""

    directory: Path
    python: Path | None = None
    python_minor: tuple[int, int] | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    site_packages: Path | None = None
    tritonserver: Path | None = None
    stub: Path | None = None
    libpython_directory: Path | None = None
    problems: tuple[Problem, ...] = ()


def find_python(directory: Path) -> Path | None:
    """The interpreter of the environment in ``directory``, if there is one."""
    python = directory / "bin" / "python3"
    return python.absolute() if python.exists() else None  # not resolved: the link is what makes it this environment's


def machine_problems() -> tuple[Problem, ...]:
    """What keeps the embedded Triton from running on this machine, whatever is installed."""
    return platform_problems(sys.platform, platform.machine(), platform.libc_ver())


def platform_problems(system: str, machine: str, libc: tuple[str, str]) -> tuple[Problem, ...]:
    """The same for any machine: (``linux``, ``x86_64``, (``glibc``, ``2.36``)) has no problems."""
    if system != "linux" or machine.lower() not in ("x86_64", "amd64"):
        what = f"the embedded Triton runs on Linux on x86-64 only, this is {system} on {machine}"
        return (Problem(what, "connect to one elsewhere with `triton.mode: external`"),)
    name, version = libc
    if name == "glibc" and numbers_of(version) >= GLIBC_NEEDED:
        return ()
    has = f"this system has {version}" if name == "glibc" else "this system has another C library"
    what = f"the embedded Triton needs glibc {dotted(GLIBC_NEEDED)} or newer, {has}"
    return (Problem(what, f"use Debian 12, Ubuntu 22.04 or newer, {EXTERNAL}"),)


def inspect(directory: Path) -> RuntimeReport:
    """Look at a runtime (about 60 ms: its Python is started once)."""
    machine = machine_problems()
    python = find_python(directory)
    if sign := sign_of_a_model(directory.absolute().parent):  # whoever made that folder would choose what is run here
        what = f"{directory} lies in a model's folder ({sign}) and is not started"
        problem = Problem(what, f"set triton.runtime_directory, {EXTERNAL}")
        return RuntimeReport(directory=directory, problems=(*machine, problem))
    if python is None:
        what = f"there is no model runtime in {directory} (triton.runtime_directory)"
        problem = Problem(what, f"{INSTALL}, {EXTERNAL}")
        return RuntimeReport(directory=directory, problems=(*machine, problem))
    seen = ask_interpreter(python)
    if seen is None:
        what = f"the Python of the model runtime in {directory} does not start"
        problem = Problem(what, f"{INSTALL} anew, {EXTERNAL}")
        return RuntimeReport(directory=directory, python=python, problems=(*machine, problem))
    server = seen.site_packages / "pytriton" / "tritonserver"
    binary = server / "bin" / "tritonserver"
    stub = server / "python_backend_stubs" / dotted(seen.minor) / "triton_python_backend_stub"
    problems = list(machine)
    if not binary.is_file():
        what = f"the model runtime in {directory} has no tritonserver (nvidia-pytriton)"
        problems.append(Problem(what, f"{INSTALL}, {EXTERNAL}"))
    elif not stub.is_file():
        problems.append(no_stub(seen.minor))
    if seen.library is None:
        problems.append(no_library(seen.minor))
    numpy = seen.packages.get("numpy", "")
    if numbers_of(numpy) >= (2,):
        what = f"the model runtime has numpy {numpy}, with which Triton's answers fail"
        problems.append(Problem(what, f"{INSTALL} with numpy < 2"))
    missing = [name for name in ("numpy", "torch", "transformers") if name not in seen.packages]
    if missing:
        what = f"the model runtime in {directory} lacks {', '.join(missing)}"
        problems.append(Problem(what, f"{INSTALL} whole, {EXTERNAL}"))
    return RuntimeReport(
        directory=directory,
        python=python,
        python_minor=seen.minor,
        packages=seen.packages,
        site_packages=seen.site_packages,
        tritonserver=binary if binary.is_file() else None,
        stub=stub if stub.is_file() else None,
        libpython_directory=seen.library,
        problems=tuple(problems),
    )


def no_runtime(report: RuntimeReport, install: str) -> Problem:
    """Where a runtime was looked for that is none, for who wanted a part of it. ``install``: the command that adds the part."""
    where = report.directory.absolute()  # by default it lies beside the working directory's modelium.yaml
    what = f"there is no model runtime in {where}" if report.python is None else f"the model runtime in {where} does not start"
    return Problem(what, f"set triton.runtime_directory to the one you have, or {install} makes one")


def no_stub(minor: Sequence[int]) -> Problem:
    """A Python that Triton's python backend was not built for."""
    what = f"Triton's python backend has no stub for Python {dotted(minor)} (it has 3.8 to 3.13)"
    return Problem(what, f"choose another with `modelium runtime install --python 3.12`, {EXTERNAL}")


def no_library(minor: Sequence[int]) -> Problem:
    """A Python without its shared library (Debian's and Ubuntu's have it in a package of its own)."""
    package = f"libpython{dotted(minor)}"
    return Problem(
        f"{package}.so.1.0 was not found, which Triton's python backend needs",
        f"install the package {package} (`apt install {package}`), use a Python built with --enable-shared, {EXTERNAL}",
    )


def ask_interpreter(python: Path) -> Interpreter | None:
    """None when it does not start."""
    try:
        done = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, check=True, timeout=60)
        seen = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    major, minor = seen["version"]
    return Interpreter(
        minor=(major, minor),
        site_packages=Path(seen["site_packages"]),
        library=_find_library(seen["library"], (major, minor), [Path(place) for place in seen["places"]]),
        packages=dict(seen["packages"]),
    )


def _find_library(soname: str, minor: Sequence[int], places: Sequence[Path]) -> Path | None:
    wanted = soname if ".so" in soname else f"libpython{dotted(minor)}.so.1.0"  # a static build names its .a here
    for place in places:
        if (place / wanted).is_file():
            return place
    ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if ldconfig is not None:
        listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False, timeout=60).stdout
        for line in listed.splitlines():
            name, _, path = line.strip().partition(" => ")
            if name.split(" ", 1)[0] == wanted and Path(path).is_file():
                return Path(path).parent
    return None


def numbers_of(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: ``2.13.0+cpu`` → (2, 13)."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def dotted(numbers: Sequence[int]) -> str:
    """(3, 11) → ``3.11``."""
    return ".".join(str(number) for number in numbers)
