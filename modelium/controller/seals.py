"""Whether a folder is still what was looked at: a candidate with the signature of then enters, an answer or an error leaves.

Sizes, times and names say so, not contents.
"""

from __future__ import annotations

import asyncio
import time

from modelium.errors import FolderChanged, ModeliumError
from modelium.errors import LoadFailed as LoadFailure
from modelium.values import Candidate
from modelium.watcher.survey import Surveyor

CHANGED = "its folder is being written to: it is looked at again, and loaded when it is whole"
_SETTLED_AFTER_S = 1.0


def seal_of(candidate: Candidate) -> str:
    """The signature of its folder at this moment; "" when nothing is there."""
    found = Surveyor(candidate.root).look_again(str(candidate.path))
    return found.signature if found is not None else ""


async def has_changed(source: Candidate | None) -> bool:
    """Whether anything was written to the folder since it was looked at."""
    return source is not None and await asyncio.to_thread(seal_of, source) != source.signature


async def see_unchanged(source: Candidate | None) -> None:
    """Raises ``FolderChanged``."""
    if await has_changed(source):
        raise FolderChanged(CHANGED)


async def settle(source: Candidate | None) -> None:
    """A revision that goes beside the one that serves cannot be taken back: who still writes to it has to pause first.

    Contents of the same length that are written over the old ones (``rsync --inplace``) look whole at every moment.
    """
    if source is not None:
        found = await asyncio.to_thread(Surveyor(source.root).look_again, str(source.path))
        age_s = time.time() - (found.newest_mtime if found is not None else 0.0)
        if 0.0 <= age_s < _SETTLED_AFTER_S:
            await asyncio.sleep(_SETTLED_AFTER_S - age_s)
        await see_unchanged(source)


async def blame(source: Candidate | None, error: ModeliumError) -> ModeliumError:
    """What made a load fail: a folder that changed meanwhile, whatever the model said."""
    if isinstance(error, LoadFailure) and await has_changed(source):
        return FolderChanged(f"{CHANGED} ({error})")
    return error
