"""Which file is the configuration: what was given and the working directory enter, a file that may be believed leaves.

A folder from the internet may hold a ``modelium.yaml`` too. Whoever works in such a folder has not chosen it: it would say
where API keys go, and which programs are started.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelium.errors import ConfigError
from modelium.file_names import is_weights

NAME = "modelium.yaml"
VARIABLE = "MODELIUM_CONFIG"

# What only models' folders have, beside weights.
_MODELS_FILES = frozenset(
    {
        *("config.json", "model_index.json", "modules.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("generation_config.json", "preprocessor_config.json", "config.pbtxt", "serve_app.py"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``path`` None: there is none, the defaults hold. ``given``: the user named it. ``ignored``: why one that lies here does
    not count."""

    path: Path | None = None
    given: bool = False
    ignored: str = ""


def find_config(given: Path | None, *, variables: Mapping[str, str], directory: Path) -> Found:
    """In this order; the first that there is counts.

    1. The file that was given (``--config``).
    2. The file that ``$MODELIUM_CONFIG`` names.
    3. ``modelium.yaml`` in the working directory, unless that is a model's folder. It has to be this user's (or root's), and
       nobody else's to write: else it is an error, since to go on without it would be to serve without its API keys.
    """
    if given is not None:  # 1
        return Found(path=given, given=True)
    if named := variables.get(VARIABLE, ""):  # 2
        return Found(path=Path(named), given=True)
    path = directory / NAME
    if not path.is_file():  # 3
        return Found()
    if sign := sign_of_a_model(directory):
        why = f"{NAME} is not taken for the configuration: this is a model's folder ({sign})"
        return Found(ignored=f"{why}; `--config {NAME}` takes it")
    if fault := _fault_of(path):
        raise ConfigError(
            f"{NAME} in this directory {fault}: it counts only if you name it, with `--config {NAME}` or in ${VARIABLE}"
        )
    return Found(path=Path(NAME))


def sign_of_a_model(directory: Path) -> str:
    """The name in it that only a model's folder has; "" for any other directory."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return ""
    return next((name for name in names if name in _MODELS_FILES or is_weights(name)), "")


def _fault_of(path: Path) -> str:
    try:
        seen = path.stat()
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if seen.st_uid not in (os.getuid(), 0):
        return "belongs to another user"
    if seen.st_mode & 0o002:
        return "may be written by everybody"
    if seen.st_mode & 0o020 and not _is_ones_own(seen.st_gid):
        return "may be written by its group"
    return ""


def _is_ones_own(group: int) -> bool:
    """The group that many systems make for each user, in which nobody else is; root's too."""
    if group == 0:
        return True
    try:
        found, me = grp.getgrgid(group), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group == me.pw_gid and found.gr_name == me.pw_name and set(found.gr_mem) <= {me.pw_name}
