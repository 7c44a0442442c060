"""The kinds of panels: a title, what it says, a unit and queries enter, a ``Panel`` leaves."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.grafana import Color, Json, Limit, Panel, Query, Unit

ALERT = Color.RED  # the colour from the limit of an alert on


def time_series(
    title: str,
    description: str,
    unit: Unit,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    alert_at: float | None = None,
    maximum: float | None = None,
) -> Panel:
    """Lines over time, or areas one on the other. ``alert_at`` draws the limit of the alert that watches this."""
    custom: dict[str, Json] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 10,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if alert_at is None else "dashed"},
    }
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=8,
        limits=() if alert_at is None else (Limit(at=alert_at, color=ALERT),),
        maximum=maximum,
        custom=custom,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def stat(
    title: str,
    description: str,
    unit: Unit,
    query: Query,
    *,
    width: int = 4,
    calm: Color = Color.GREEN,
    limits: tuple[Limit, ...] = (),
    words: Mapping[int, tuple[str, Color]] | None = None,
) -> Panel:
    """The latest value, large, with its past behind it; of ``words``, the word for it."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=(query,),
        width=width,
        height=4,
        calm=calm,
        limits=limits,
        words=words or {},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if words else "value",
            "graphMode": "none" if words else "area",
            "textMode": "auto",
        },
    )


def bars(
    title: str,
    description: str,
    unit: Unit,
    query: Query,
    *,
    width: int = 8,
    limits: tuple[Limit, ...] = (),
    maximum: float | None = None,
) -> Panel:
    """One horizontal bar a series, of its latest value."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        queries=(query,),
        width=width,
        height=8,
        calm=Color.BLUE if not limits else Color.GREEN,
        limits=limits,
        maximum=maximum,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "horizontal",
            "displayMode": "gradient",
            "valueMode": "color",
            "showUnfilled": True,
        },
    )


def timeline(
    title: str, description: str, query: Query, words: Mapping[int, tuple[str, Color]], *, width: int = 24, height: int = 8
) -> Panel:
    """One band a series; its value over time as ``words`` and colours."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit=Unit.COUNT,
        queries=(query,),
        width=width,
        height=height,
        words=words,
        custom={"fillOpacity": 70, "lineWidth": 0},
        options={
            "mergeValues": True,
            "showValue": "auto",
            "rowHeight": 0.9,
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def heatmap(title: str, description: str, unit: Unit, query: Query, *, width: int = 12) -> Panel:
    """How many observations of a histogram fell into each bucket, over time."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        unit=unit,
        queries=(query,),
        width=width,
        height=8,
        minimum=None,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 32, "exponent": 0.5, "fill": "dark-blue", "reverse": False},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
    )


def table(
    title: str,
    description: str,
    unit: Unit,
    queries: Mapping[str, str],
    *,
    labels: tuple[str, ...],
    width: int = 24,
    height: int = 10,
    words: Mapping[int, tuple[str, Color]] | None = None,
) -> Panel:
    """One line a combination of ``labels``, one column a query: its heading → its expression, asked for now."""
    letters = "ABCDEFGH"
    # A single query's column is called Value, those of several Value #A, Value #B …
    values = {f"Value #{letter}": head for letter, head in zip(letters, queries, strict=False)}
    renamed: dict[str, Json] = {"Value": next(iter(queries)), **values, **{label: label.capitalize() for label in labels}}
    shown: dict[str, Json] = {name: place for place, name in enumerate((*labels, "Value", *values))}
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit=unit,
        queries=tuple(Query(expr=expr, instant=True, format="table") for expr in queries.values()),
        width=width,
        height=height,
        calm=Color.GREY,
        words=words or {},
        custom={"align": "auto", "cellOptions": {"type": "color-text" if words else "auto"}, "filterable": True},
        options={"showHeader": True, "cellHeight": "sm"},
        transformations=(
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": list(shown)}}},
            {"id": "organize", "options": {"excludeByName": {}, "indexByName": shown, "renameByName": renamed}},
        ),
    )
