"""One Modelium a model repository: what enters is the repository, what leaves is a lock in it, or who holds it.

The lock lies in the repository, wherever each Modelium keeps its state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from modelium.errors import ConfigError
from modelium.guarded.claims import Held, claim

LOCK = ".modelium.lock"


@contextlib.contextmanager
def claim_repository(repository: Path) -> Iterator[None]:
    """Hold the repository, made where it is missing. Raises ``ConfigError`` when another process holds it."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = claim(repository / LOCK)
    except Held as holder:
        raise ConfigError(
            f"another Modelium ({holder}) uses the model repository {repository}: end it, or choose another with "
            "triton.model_repository"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"triton.model_repository: {repository} cannot be used ({error.strerror}): give this user the right to write "
            "there, or choose another"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
