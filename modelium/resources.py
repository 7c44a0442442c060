"""Where the files that are not Python lie: what enters is nothing, what leaves are directories.

In a source tree ``repository_templates/`` and ``triton/`` stand at the top, where people look for them; in a wheel they
ride inside the package (``force-include`` in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def templates_directory() -> Path:
    """``repository_templates/``: one readable model-repository entry per runtime."""
    return _find("repository_templates")


def triton_directory() -> Path:
    """``triton/``: Python-based backends, requirements of the model runtime, constraints."""
    return _find("triton")


def nursery_package() -> Path:
    """The package that entries and backends carry with them, so that their models are born of a nursery."""
    return triton_directory() / "nursery" / "modelium_nursery"


def _find(name: str) -> Path:
    packed = _PACKAGE / "_resources" / name
    # Not just ``modelium/../triton``: in site-packages that could be OpenAI's ``triton``, the compiler.
    return packed if packed.is_dir() else _PACKAGE.parent / name
