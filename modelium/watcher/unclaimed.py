"""What was dropped for a model and is none as it lies there: names and listings enter, a line for each leaves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modelium.file_names import SERVED_ALONE, is_archive, is_weights, is_whole_model
from modelium.values import Unclaimed
from modelium.watcher.listing import Listing, list_directory, size_of
from modelium.watcher.shapes import Evidence, evidence_of, is_part

MOST = 100
_PLAIN_BYTES = ".bin"
_PLACES = "models may lie in NAME/ or ORG/NAME/ of the watched directory"


def loose_files(directory: str, names: Iterable[str], *, beside_onnx: bool = False) -> tuple[Unclaimed, ...]:
    """Of the files that lie in no model's folder those that look like one.

    ``beside_onnx``: an ONNX file lies there and is a model; its tensors may be in plain bytes beside it, in no other format.
    """
    found = []
    for name in names:
        if beside_onnx and name.lower().endswith(_PLAIN_BYTES):
            continue
        if is_archive(name):
            advice = f"an archive: unpack it into a folder of its own; {_PLACES}"
        elif is_whole_model(name):
            advice = f"a model of one file, outside a folder of its own: put it into NAME/ or ORG/NAME/; {_PLACES}"
            if name.lower().endswith(SERVED_ALONE):
                advice += ", this kind of file also in the watched directory itself"
        elif is_weights(name):
            advice = f"weights without a folder: put them into NAME/ together with the config.json they came with; {_PLACES}"
        else:
            continue
        found.append(Unclaimed(path=Path(directory, name), advice=advice))
        if len(found) == MOST:
            break
    return tuple(found)


def buried_models(path: str, top: Listing) -> tuple[Unclaimed, ...]:
    """Models in the directories of ``ORG/NAME/``, where nobody looks for them."""
    if evidence_of(path, top, size_of) is not Evidence.NONE:
        return ()
    found = []
    for name in [name for name in top.directories if not is_part(name, top.files)][:MOST]:
        at = f"{path}/{name}"
        try:
            evidence = evidence_of(at, list_directory(at), size_of)
        except OSError:
            continue
        if evidence >= Evidence.FILE:
            found.append(Unclaimed(path=Path(at), advice=f"a model three levels deep: move it up; {_PLACES}"))
    return tuple(found)
