"""Whether a watch directory is the one that it was: what enters is a path, what leaves is which directory stands there.

A disk that is unmounted leaves an empty directory behind, or none: that says nothing about the models on it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """``mount``: the kernel's number of the mount it lies on, "" where that cannot be known."""

    device: int
    mount: str


def standing_of(path: Path) -> Standing:
    """Raises ``OSError`` when no directory that may be read is there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Standing(device=os.fstat(descriptor).st_dev, mount=_mount_of(descriptor))
    finally:
        os.close(descriptor)


def _mount_of(descriptor: int) -> str:
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("mnt_id:")), "")
