"""A model's folder whose weights are in memory already, where a nursery has them (``modelium_nursery.weights``).

What enters: a folder. What leaves: a folder with the same files to read from; weights that are shared are links to memory.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SHARES = "modelium_shares"


@contextlib.contextmanager
def shared_weights(folder: Path) -> Iterator[Path]:
    """The folder itself, or one of links as long as it is needed: what has been mapped stays mapped."""
    shares = sys.modules.get(_SHARES)
    found = {} if shares is None else {path.name: shares.path_of(str(path)) for path in folder.glob("*.safetensors")}
    shared = {name: place for name, place in found.items() if place is not None}
    with contextlib.ExitStack() as stack:
        readable = folder
        if shared:
            with contextlib.suppress(OSError):  # no place for the links: then the files are read, as without a nursery
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelium-weights-")))
                for path in folder.iterdir():
                    (directory / path.name).symlink_to(shared.get(path.name, path.absolute()))
                readable = directory
        yield readable
