"""Grafana dashboards as code, from the catalogue: each question a panel, with its unit and the sentence that says what it tells.

No Grafana is needed to make one, nor to see the same panels: the labs draw them from the same queries.

>>> text = dashboards.text()  # doctest: +SKIP
>>> Path("dashboard.json").write_text(text)  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as data
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from labkit.scale.observe import CATALOGUE, Query, Source, Unit

# Grafana's names of the catalogue's units
UNITS: dict[Unit, str] = {"1/s": "reqps", "s": "s", "share": "percentunit", "count": "short", "tokens/s": "suffix: tokens/s"}
ROWS: list[tuple[str, Source]] = [
    ("What comes in, and what goes out", "haproxy"),
    ("What users wait for", "gen_ai"),
    ("The model servers", "llama_server"),
    ("Is it still good?", "quality"),
]
SPAN = 8  # of Grafana's 24 columns: three panels a row


def dashboard(sources: Iterable[Source] = ("haproxy", "gen_ai", "llama_server"), title: str = "A small language model, served") -> Any:
    """The SDK's model of it. sources: those whose metrics are there; a panel without data teaches nobody anything."""
    wanted = set(sources)
    made = (
        build.Dashboard(title).uid("labkit-slm").tags(["slm"]).refresh("5s").time("now-15m", "now").timezone("browser").tooltip(_shared())
        .with_variable(build.DatasourceVariable("source").label("Data source").type("prometheus"))
    )  # fmt: skip
    number = 0
    for name, source in ROWS:
        if source in wanted:
            made = made.with_row(build.Row(name))
            for query in (one for one in CATALOGUE.values() if one.source == source):
                number += 1
                made = made.with_panel(_panel(query).id(number))
    return made.build()


def text(sources: Iterable[Source] = ("haproxy", "gen_ai", "llama_server")) -> str:
    """The JSON that Grafana imports."""
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard(sources)) + "\n"


def panels(text: str) -> Iterator[tuple[str, str]]:
    """(title, PromQL) of each target of a dashboard's JSON. $__rate_interval stands where Grafana puts a span of its own."""
    for panel in json.loads(text)["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def _panel(query: Query) -> timeseries.Panel:
    expression = query.text.replace("WINDOW", "$__rate_interval")
    source = DataSourceRef(type_val="prometheus", uid="$source")
    target = data.Dataquery().ref_id("A").expr(expression).legend_format("__auto").datasource(source)
    made = timeseries.Panel().title(query.title).description(query.meaning).unit(UNITS[query.unit]).span(SPAN).height(7)
    # a gap is a gap: a line over it would show what nobody measured
    made = made.datasource(source).with_target(target).min(0).line_width(2).fill_opacity(0)
    return made.legend(common.VizLegendOptions().show_legend(True))


def _shared() -> Any:
    """One crosshair over all panels: a moment is looked at in each of them."""
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    return DashboardCursorSync.CROSSHAIR
