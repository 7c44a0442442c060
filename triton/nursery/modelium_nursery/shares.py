"""A child's weights in memory: places from its nursery enter, the files in memory that it uses leave."""

from __future__ import annotations

import contextlib
import json
import os
import threading

from .shelf import Place
from .weights import fill, is_same, is_used_as_it_is


class Shares:
    """A child's: the files whose bytes it takes from memory. They are found or filled by a thread from the start, beside the
    imports; then the rest is closed, and the nursery told what is used.

    Only files that are used as they are: others are converted when they are loaded, and a second copy would be a waste.
    """

    def __init__(self, places: dict[str, Place], tell: int) -> None:
        self._places, self._tell = places, tell
        self._chosen: dict[str, int] = {}
        self._chooser = threading.Thread(target=self._choose_all, name="weights", daemon=True)
        if places:
            self._chooser.start()
        else:
            os.close(tell)

    def path_of(self, path: str) -> str | None:
        """Where the bytes of a file of weights are to be mapped from; None: from the file itself."""
        if path not in self._places:
            return None
        self._chooser.join()
        return f"/proc/self/fd/{self._chosen[path]}" if path in self._chosen else None

    def _choose_all(self) -> None:
        try:
            for path, place in self._places.items():
                with contextlib.suppress(OSError):
                    if is_used_as_it_is(path) and (chosen := _choose(path, place)) is not None:
                        self._chosen[path] = chosen
            used = set(self._chosen.values())
            for descriptor in {one for place in self._places.values() for one in place.all} - used:
                os.close(descriptor)
            with contextlib.suppress(OSError):  # it does not wait for that any more
                os.write(self._tell, json.dumps(sorted(used)).encode())
        finally:
            os.close(self._tell)


def _choose(path: str, place: Place) -> int | None:
    same = (other for other in place.alike if is_same(path, place.identity, other))
    if (found := next(same, None)) is not None:
        return found
    return place.own if fill(path, place.identity, place.own) else None
