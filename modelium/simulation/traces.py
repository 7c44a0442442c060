"""Traces: lines of CSV enter, arrivals in the order of time leave. What is read is nobody's word until it was checked.

A line is ``time_s,model[,duration_s]``. A million requests take 16 MB: three arrays, and each name once.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from modelium.names import printable
from modelium.simulation.inputs import BadInput

LONGEST_LINE = 2_048
MOST_REQUESTS = 50_000_000
MOST_MODELS = 100_000
LONGEST_DURATION_S = 7 * 24 * 3600.0
_LATEST_S = 1e11  # as seconds since 1970: three thousand years
_CHUNK = 65_536
_FORM = "time_s,model[,duration_s]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """``times`` begin at 0 and do not fall; ``models`` are indices of ``names``; ``durations``: of the answers, in seconds."""

    names: tuple[str, ...]
    times: NDArray[np.float64]
    models: NDArray[np.int32]
    durations: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> float:
        """From the first arrival to the last."""
        return float(self.times[-1]) if len(self) else 0.0

    def arrivals(self) -> Iterator[tuple[float, int, float]]:
        """Time, model, duration, as plain numbers; some thousands of them exist at once."""
        for at in range(0, len(self), _CHUNK):
            part = slice(at, at + _CHUNK)
            yield from zip(self.times[part].tolist(), self.models[part].tolist(), self.durations[part].tolist(), strict=True)

    def without(self, unknown: frozenset[int]) -> Trace:
        """Without the requests for these models."""
        kept = ~np.isin(self.models, list(unknown))
        return Trace(names=self.names, times=self.times[kept], models=self.models[kept], durations=self.durations[kept])


def read_trace(path: Path, *, duration_s: float) -> Trace:
    """The trace in a file. ``duration_s``: of requests whose line says none. Raises ``BadInput``."""
    try:
        with path.open("rb") as file:
            return parse_trace(file, str(path), duration_s=duration_s)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def parse_trace(file: BinaryIO, where: str, *, duration_s: float, mended: bool = False) -> Trace:
    """The trace in these bytes; ``where`` is what the errors call them. Raises ``BadInput``.

    ``mended``: where time goes back (a clock was set, Modelium was restarted), it goes on from there.
    """
    numbers: dict[str, int] = {}
    times, models, durations = array("d"), array("i"), array("f")
    first, last, ahead, may_be_header = 0.0, -math.inf, 0.0, True
    for number, line in _lines(file, where):
        fields = line.split(",")
        is_header, may_be_header = may_be_header and fields[0].strip().strip('"').lower() in ("time_s", "time"), False
        if is_header:
            continue
        if len(fields) not in (2, 3):
            raise BadInput(f"{where}, line {number}: {len(fields)} fields; a line is {_FORM}")
        at = _number(fields[0], where, number, "time_s", most=_LATEST_S)
        name = fields[1].strip().strip('"')
        if not name:
            raise BadInput(f"{where}, line {number}: it names no model; a line is {_FORM}")
        given = fields[2].strip() if len(fields) == 3 else ""
        took = _number(given, where, number, "duration_s", most=LONGEST_DURATION_S) if given else duration_s
        if mended:
            ahead = max(ahead, last - at)
            at += ahead
        elif at < last:
            raise BadInput(f"{where}, line {number}: time goes back from {last:g} to {at:g}; sort it: sort -t, -k1,1g")
        if not times:
            first = at
        last = at
        index = numbers.setdefault(name, len(numbers))
        times.append(at - first)
        models.append(index)
        durations.append(took)
        if len(times) > MOST_REQUESTS:
            raise BadInput(f"{where}: more than {MOST_REQUESTS:,} requests; simulate a part of it")
        if len(numbers) > MOST_MODELS:
            raise BadInput(f"{where}, line {number}: more than {MOST_MODELS:,} models; is the second field the model's name?")
    if not times:
        raise BadInput(f"{where}: no requests in it; a line is {_FORM}")
    return Trace(
        names=tuple(numbers),
        times=np.frombuffer(times, dtype=np.float64),
        models=np.frombuffer(models, dtype=np.int32),
        durations=np.frombuffer(durations, dtype=np.float32),
    )


def _lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers from 1."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise BadInput(f"{where}, line {number}: longer than {LONGEST_LINE:,} bytes; a line is {_FORM}")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise BadInput(f"{where}, line {number}: it is no UTF-8 text; a trace is CSV, {_FORM}") from None
        if text and not text.startswith("#"):
            yield number, text


def _number(text: str, where: str, line: int, what: str, *, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(
            f"{where}, line {line}: {what} is {printable(text, longest=40)!r}, which is no number{_advice(text)}"
        ) from None
    if not 0 <= value <= most:  # which nan is not either
        raise BadInput(f"{where}, line {line}: {what} is {text.strip()}; from 0 to {most:,.0f} seconds{_advice(text)}")
    return value


def _advice(text: str) -> str:
    """Of a time that is usual elsewhere."""
    if re.match(r"\s*\"?\d{4}-\d\d-\d\d", text):
        return "; write seconds, as of 1970 (date -d '2026-01-31T12:00:00Z' +%s)"
    if re.fullmatch(r"\s*\d{12,}(\.\d*)?\s*", text):
        return "; are these milliseconds (divide by 1,000), or parts of them?"
    return ""
