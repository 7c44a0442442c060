"""What is leaked on the devices since Triton came up. What enters: readings, and what unloads left. What leaves: nothing; the
marks are changed in place, and a new one is said in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping

from modelium.brain.leaks import Leak, after_reading, after_unload
from modelium.controller.events import MemoryLeft
from modelium.sizes import human_bytes

log = logging.getLogger(__name__)


def note_reading(leaks: MutableMapping[str, Leak], residues: Mapping[str, int]) -> None:
    """What came back is leaked no more."""
    for device, residue in residues.items():
        leaks[device] = after_reading(leaks.get(device), residue)


def note_unload(leaks: MutableMapping[str, Leak], event: MemoryLeft) -> None:
    """Whether the memory of what was unloaded came back."""
    for device, grown in event.grown.items():
        before = leaks.get(device)
        leak = leaks[device] = after_unload(before, grown_bytes=grown, residue_bytes=event.residues[device])
        if leak.leaked_bytes > (before.leaked_bytes if before is not None else 0):
            words = "%s: %s of its memory on %s did not come back with its unload; %s are leaked there since Triton started"
            log.warning(words, event.model, human_bytes(grown), device, human_bytes(leak.leaked_bytes))
