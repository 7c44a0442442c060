"""Short collections of cycles: how many lasting values there are enters, and the collector passes over what lasts.

A full collection goes through everything that may be part of a cycle. With thousands of models known that takes tenths of a
second, in which nobody is answered; almost all of it lives as long as Modelium does.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

_EVERY_S = 1.0
_MORE = 100


async def keep_collections_short(count: Callable[[], int], *, more: int = _MORE, every_s: float = _EVERY_S) -> None:
    """Until cancelled. Whenever ``count()`` has grown by ``more``, what is there then is passed over from then on.

    What is frozen is still freed when the last reference goes; only cycles among it stay, so it is not done by the clock.
    """
    gc.freeze()  # nothing is collected first: what imports leave behind are some twenty objects
    known = count()
    while True:
        await asyncio.sleep(every_s)
        if count() >= known + more:
            known = count()
            gc.freeze()
