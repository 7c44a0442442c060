"""What must hold before anything is started: settings enter, an error that says what to change leaves, or nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modelium.config import Settings
from modelium.errors import ConfigError

_KEY = "orchestration.model_discovery.watch_directories"
_ODD = re.compile(r"[^\w./+,:@%=~^-]", re.ASCII)


def prepare_directories(settings: Settings) -> None:
    """Make the watch directories and see that each can be watched; blocking. Raises ``ConfigError``.

    Modelium's own directories must lie elsewhere: its entries would be taken for models, and dropped models for entries.
    """
    own = {
        "triton.model_repository": settings.triton.model_repository,
        "triton.state_directory": settings.triton.state_directory,
    }
    if settings.triton.mode == "embedded":
        for key, directory in own.items():
            _check_plain(key, directory.absolute())
    for watched in settings.orchestration.model_discovery.watch_directories:
        here = Path(os.path.realpath(watched))
        for key, directory in own.items():
            there = Path(os.path.realpath(directory))
            if here == there or here in there.parents or there in here.parents:
                how = "is" if here == there else "contains" if here in there.parents else "lies in"
                raise ConfigError(f"{_KEY}: {watched} {how} {directory}, which is {key}: choose a directory of its own")
        try:
            watched.mkdir(parents=True, exist_ok=True)
            with os.scandir(watched) as entries:
                next(entries, None)
        except (FileExistsError, NotADirectoryError):
            if link := next((each for each in (watched, *watched.parents) if each.is_symlink() and not each.exists()), None):
                how = "is" if link == watched else f"lies in {link},"
                raise ConfigError(
                    f"{_KEY}: {watched} {how} a link that leads nowhere (to {link.readlink()}): "
                    "make what it leads to, or mount it, or choose another directory"
                ) from None
            raise ConfigError(f"{_KEY}: {watched} is, or lies in, a file: choose a directory") from None
        except OSError as error:
            what = "be read" if watched.exists() else "be made"
            raise ConfigError(
                f"{_KEY}: {watched} cannot {what} ({error.strerror}): give this user the right to, or choose another"
            ) from error


def _check_plain(key: str, directory: Path) -> None:
    """Triton's python backend gives paths to a shell without quotes, and its stub takes them for ASCII."""
    if odd := _ODD.search(str(directory)):
        raise ConfigError(
            f"{key}: {directory} has {odd[0]!r} in it, which Triton's python backend cannot read: choose a path of ASCII "
            "letters, digits and any of ._-+ (or connect to a Triton elsewhere with `triton.mode: external`)"
        )


def listeners(settings: Settings) -> dict[str, str]:
    """Where Modelium itself is to listen, ``host:port`` by key; not those whose port is chosen when they do."""
    wanted = {"gateway.port": (settings.gateway.host, settings.gateway.port)}
    if settings.gateway.grpc_port is not None:
        wanted["gateway.grpc_port"] = (settings.gateway.host, settings.gateway.grpc_port)
    if settings.metrics.enabled:
        wanted["metrics.port"] = (settings.metrics.host, settings.metrics.port)
    return {
        key: f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"
        for key, (host, port) in wanted.items()
        if port
    }
