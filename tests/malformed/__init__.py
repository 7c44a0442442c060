"""Malformed HTTP requests of sixteen kinds: a seed and names of models enter, bytes to send leave. Pure: one seed, one run.

Most are made from a right request, of which one thing is made wrong, so that each comes as far as it can.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from . import bodies, wires
from .making import Maker, Malformed, Models, Port, Then, rights

__all__ = ["KINDS", "Malformed", "Models", "Port", "Then", "malformed"]

KINDS: Mapping[str, Callable[[Maker], Malformed]] = {
    "JSON that is none": bodies.wrong_json,
    "wrong types": bodies.wrong_types,
    "Content-Encoding": bodies.wrong_encoding,
    "Content-Length": wires.wrong_length,
    "chunks": wires.wrong_chunks,
    "cut off": wires.cut_off,
    "methods": wires.wrong_methods,
    "paths": wires.wrong_paths,
    "names": bodies.wrong_names,
    "surrogates": bodies.wrong_surrogates,
    "headers": wires.wrong_headers,
    "multipart": bodies.wrong_multipart,
    "numbers": bodies.wrong_numbers,
    "depth": bodies.wrong_deep,
    "unknown models": wires.unknown_models,
    "streams": wires.left_streams,
}


def malformed(seed: int, models: Models, *, kinds: tuple[str, ...] = ()) -> Iterator[Malformed]:
    """Without an end, of all kinds (or of ``kinds``) by chance."""
    chance = random.Random(seed)
    right = rights(models)
    chosen = kinds or tuple(KINDS)
    while True:
        kind = chance.choice(chosen)
        yield KINDS[kind](Maker(kind, chance, right, models))
