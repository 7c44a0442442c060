"""Sound at one rate → the same sound at another, block by block. The cost is bounded whatever the two rates are.

What enters: blocks of one channel. What leaves: one array at the wanted rate. A windowed sinc at the lower rate's limit. Rates
that have a divisor in common (44,100 and 16,000) get one filter for each of the output's phases. Others (47,999: its phases
alone would take 6 GB) get filters between 512 phases. Positions are whole numbers, so nothing drifts however long the sound is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
_ZEROS, _ROLLOFF, _BETA = 16, 0.945, 14.77
_PHASES = 512
_LARGEST_FILTERS = 2**21  # numbers
_LARGEST_STEP = 2**22  # numbers of one product


def resample(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> np.ndarray:
    """All of ``blocks`` at ``wanted``; ``rate`` within the two limits above."""
    if rate == wanted:
        return _joined(blocks)
    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for block in blocks:
            count += len(block)
            yield np.asarray(block, dtype=np.float32)

    divisor = math.gcd(rate, wanted)
    step, phases = rate // divisor, wanted // divisor
    exact = phases * (step + 2 * _width(rate, wanted)) <= _LARGEST_FILTERS
    result = _joined((_by_phases if exact else _between_phases)(counted(), step, phases))
    return result[: math.ceil(count * wanted / rate)]


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.float32), *parts])


def _cutoff(step: int, phases: int) -> float:
    """The filter's limit, in units of half the input's rate."""
    return min(1.0, phases / step) * _ROLLOFF


def _width(step: int, phases: int) -> int:
    """Samples of the input on either side that an output depends on."""
    return math.ceil(_ZEROS / _cutoff(step, phases))


def _filter(times: np.ndarray, cutoff: float) -> np.ndarray:
    """The filter at ``times``, in samples of the input."""
    scaled = np.clip(times * cutoff, -_ZEROS, _ZEROS)
    window = np.i0(_BETA * np.sqrt(1 - (scaled / _ZEROS) ** 2)) / np.i0(_BETA)
    return (np.sinc(scaled) * window * cutoff).astype(np.float32)


def _padded(blocks: Iterable[np.ndarray], width: int, step: int) -> Iterator[np.ndarray]:
    yield np.zeros(width, dtype=np.float32)
    yield from blocks
    yield np.zeros(width + step, dtype=np.float32)


def _by_phases(blocks: Iterable[np.ndarray], step: int, phases: int) -> Iterator[np.ndarray]:
    width = _width(step, phases)
    taps = 2 * width + step
    times = np.arange(-width, width + step)[:, None] - np.arange(phases)[None] * (step / phases)
    filters = _filter(times, _cutoff(step, phases))
    at_once = max(1, _LARGEST_STEP // taps)
    held = np.zeros(0, dtype=np.float32)
    for block in _padded(blocks, width, step):
        held = np.concatenate([held, block])
        groups = max(0, (len(held) - taps) // step + 1)
        if groups:
            windows = np.lib.stride_tricks.sliding_window_view(held, taps)[::step]
            for start in range(0, groups, at_once):
                yield (windows[start : start + at_once] @ filters).reshape(-1)
            held = held[groups * step :]


def _between_phases(blocks: Iterable[np.ndarray], step: int, phases: int) -> Iterator[np.ndarray]:
    """Output n lies at n × step / phases of the input: a whole number of samples, and a part between two of 512 phases."""
    width = _width(step, phases)
    taps = 2 * width + 1
    parts = np.arange(_PHASES + 1)[:, None] / _PHASES
    filters = _filter(np.arange(-width, width + 1)[None] - parts, _cutoff(step, phases))
    at_once = max(1, _LARGEST_STEP // taps)
    held, dropped, made = np.zeros(0, dtype=np.float32), 0, 0
    for block in _padded(blocks, width, taps):
        held = np.concatenate([held, block])
        ready = ((dropped + len(held) - taps + 1) * phases - 1) // step + 1  # outputs whose last sample is there
        if ready <= made:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(held, taps)
        for start in range(made, ready, at_once):
            numbers = np.arange(start, min(start + at_once, ready), dtype=np.int64)
            firsts, rest = np.divmod(numbers * step, phases)
            places = rest * (_PHASES / phases)
            lower = places.astype(np.int64)
            between = (places - lower).astype(np.float32)
            seen = windows[firsts - dropped]
            below = np.einsum("ij,ij->i", seen, filters[lower])
            above = np.einsum("ij,ij->i", seen, filters[lower + 1])
            yield below + between * (above - below)
        made = ready
        first = made * step // phases
        held, dropped = held[first - dropped :], first
