"""The README's front matter. What enters: a folder. What leaves: its ``pipeline_tag`` and ``library_name``.

YAML for people; two scalars are wanted, and a YAML parser would take longer than all other questions together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelium.analyzers.folder import Folder

_MAX_FRONT_MATTER_BYTES = 64 * 1024
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_SCALAR = re.compile(r"^(pipeline_tag|library_name)[ \t]*:[ \t]*[\"']?([A-Za-z0-9_.-]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a README's front matter says of the model; "" where it is silent."""

    pipeline_tag: str = ""
    library_name: str = ""


def read_card(folder: Folder) -> ModelCard:
    """The two words; both empty where there is no README or no front matter."""
    file = folder.get("README.md")
    if file is None:
        return ModelCard()
    with file.open() as stream:
        head = stream.read(_MAX_FRONT_MATTER_BYTES).decode("utf-8", "replace")
    front = _FRONT_MATTER.search(head)
    if front is None:
        return ModelCard()
    found = dict(_SCALAR.findall(front[1]))
    return ModelCard(pipeline_tag=found.get("pipeline_tag", "").lower(), library_name=found.get("library_name", "").lower())
