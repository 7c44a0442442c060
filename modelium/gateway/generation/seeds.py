"""Seeds: the seed of a request enters, the one of each of its generations leaves."""

from __future__ import annotations

LAST_SEED = 2**63 - 1  # the engines' own


def nth_seed(seed: int, index: int) -> int:
    """Each has its own, and the same one in the next request. After the last seed comes 0.

    >>> nth_seed(7, 2), nth_seed(LAST_SEED, 1)
    (9, 0)
    """
    wanted = seed + index
    return wanted if wanted <= LAST_SEED else wanted - LAST_SEED - 1
