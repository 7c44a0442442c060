"""Sizes in words: numbers enter, what a user reads leaves."""

from __future__ import annotations


def human_bytes(size: float) -> str:
    """``1288490188`` → ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
