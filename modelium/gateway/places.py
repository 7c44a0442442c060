"""Where things lie on this machine is its owner's business: an error's words enter, the same without places leave."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from modelium.config import Settings


class Places:
    """``directories``: of this machine; in an answer what lies in them has no more than its name there."""

    def __init__(self, directories: Iterable[Path] = ()) -> None:
        names = sorted({path for each in directories for path in _spellings(each)}, key=len, reverse=True)
        self._places = re.compile("|".join(f"{re.escape(name)}(?![\\w.-])/?" for name in names)) if names else None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Where Modelium keeps and reads things."""
        own = (settings.triton.model_repository, settings.triton.state_directory, settings.triton.runtime_directory)
        watched = settings.orchestration.model_discovery.watch_directories
        return cls([*watched, *own, Path.cwd(), Path.home(), Path(tempfile.gettempdir())])

    def left_out_of(self, said: str) -> str:
        """``said`` without them.

        >>> Places([Path("/srv/incoming")]).left_out_of("/srv/incoming/m/model.onnx is cut short")
        'm/model.onnx is cut short'
        """
        return self._places.sub(_inside, said) if self._places is not None else said


def _spellings(directory: Path) -> set[str]:
    """As it is written, and as it is; not the root, and not a place that is written from here."""
    found = {str(directory.absolute()), str(directory.resolve())}
    return {name for name in found if len(Path(name).parts) > 1}


def _inside(found: re.Match[str]) -> str:
    """``/a/incoming/m/x`` is ``m/x``; the directory alone has its last name."""
    return "" if found[0].endswith("/") else Path(found[0]).name
