"""A picture of what policies would have done: outcomes enter, a PNG leaves."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from modelium.simulation.inputs import BadInput
from modelium.simulation.tally import Outcome


def require(path: Path) -> None:
    """Before a long run: raises ``BadInput`` where there is no matplotlib, or nothing can be written at ``path``."""
    if not path.parent.is_dir():
        raise BadInput(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'permission denied'}")
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInput("a picture needs matplotlib: pip install 'modelium[picture]'")


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Two panels: what all requests waited together, and how long those waited that did. Raises ``BadInput``."""
    from matplotlib.figure import Figure  # which draws without a display

    names = [outcome.policy for outcome in outcomes]
    rows = list(range(len(outcomes)))
    figure = Figure(figsize=(11, 1.8 + 0.45 * len(outcomes)), layout="constrained")
    total, quantiles = figure.subplots(1, 2, sharey=True)
    total.barh(rows, [outcome.waited_s / 3600 for outcome in outcomes], color="#4878a8")
    for row, outcome in zip(rows, outcomes, strict=True):
        words = f" {outcome.waited_s / 3600:,.2f} h" + (f", {outcome.missed:,} missed" if outcome.missed else "")
        total.annotate(words, (outcome.waited_s / 3600, row), va="center", fontsize=8)
    total.margins(x=0.25)
    total.set(xlabel="hours waited by all requests together", yticks=rows, yticklabels=names)
    total.invert_yaxis()
    for mark, part, field in (("o", "p50", "cold_p50_s"), ("s", "p95", "cold_p95_s"), ("^", "p99", "cold_p99_s")):
        quantiles.plot([getattr(outcome, field) for outcome in outcomes], rows, mark, label=part)
    quantiles.set(xlabel="seconds waited by a request whose model was not loaded")
    quantiles.set_xlim(left=0)
    quantiles.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
