"""PromQL that several panels share: names of metrics and labels enter, queries leave.

``$__rate_interval`` is Grafana's: long enough for four scrapes, and longer for a view of weeks.
"""

from __future__ import annotations

from dashboards.grafana import Color, Query
from modelium.values import State, Tone

_QUANTILES = ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))

# The states of a model as the numbers that a timeline of Grafana needs, each with its colour.
_COLORS = {
    Tone.INCOMING: Color.GREY,
    Tone.REFUSED: Color.ORANGE,
    Tone.RESTING: Color.BLUE,
    Tone.COMING: Color.YELLOW,
    Tone.GOOD: Color.GREEN,
    Tone.GOING: Color.YELLOW,
    Tone.BROKEN: Color.RED,
}
STATES = {number: (state.value, _COLORS[state.tone]) for number, state in enumerate(State, start=1)}
KNOWN = 'model=~".+"'  # without the requests for unknown models
YES_NO = {1: ("up", Color.GREEN), 0: ("DOWN", Color.RED)}
YES_NO_UNUSED = YES_NO | {2: ("not used", Color.GREY)}


def per_second(metric: str, *by: str, where: str = "") -> str:
    """The rate of a counter, summed over all labels but ``by``."""
    return f"{_summed(by)} (rate({metric}{_braces(where)}[$__rate_interval]))"


def how_many(metric: str, *by: str, where: str = "") -> str:
    """The number of events in the last five minutes: a rate says little about rare events."""
    return f"{_summed(by)} (increase({metric}{_braces(where)}[5m]))"


def quantiles(histogram: str, *, where: str = "", over: str = "$__rate_interval") -> tuple[Query, ...]:
    """Median, 95 % and 99 % of a histogram."""
    rate = f"sum by (le) (rate({histogram}_bucket{_braces(where)}[{over}]))"
    return tuple(Query(expr=f"histogram_quantile({share}, {rate})", legend=legend) for share, legend in _QUANTILES)


def buckets(histogram: str) -> Query:
    """A histogram's buckets for a heat map."""
    return Query(expr=f"sum by (le) (increase({histogram}_bucket[$__rate_interval]))", legend="{{le}}", format="heatmap")


def mean(total: str, count: str, *by: str, where: str = "", divisor: str = "") -> str:
    """The average of ``total`` per unit of ``count``."""
    return f"{per_second(total, *by, where=where)}{divisor} / ({per_second(count, *by, where=where)} > 0)"


def state_of_models(where: str = "") -> str:
    """The number of each model's state, a series a model (see ``STATES``)."""
    selected = ((number, _braces(where, f'state="{state}"')) for number, (state, _) in STATES.items())
    each = "\n  or ".join(f"{number} * modelium_model_state{braces}" for number, braces in selected)
    return f"max by (model) (\n  {each}\n)"


def _summed(by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)})" if by else "sum"


def _braces(*matchers: str) -> str:
    inner = ", ".join(matcher for matcher in matchers if matcher)
    return f"{{{inner}}}" if inner else ""
