"""The report's charts, as SVG that needs nothing from elsewhere. Colours are Okabe and Ito's."""

import json

import altair as alt
import pandas as pd
import vl_convert

from bench.report.results import Result, Trained

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8a8f8c"
VERDICTS = {"met": BLUE, "missed": VERMILION, "told": GREY}
WIDTH = 620


def svg(chart: alt.TopLevelMixin) -> str:
    specification = json.dumps(chart.to_dict(), default=str)
    return vl_convert.vegalite_to_svg(specification, vl_version=".".join(alt.SCHEMA_VERSION.split(".")[:2]))


def verdicts(results: list[Result]) -> str:
    """How many measures of each result were met, missed, or only told."""
    rows = pd.DataFrame(
        [{"result": one.title, "verdict": name, "measures": one.count(name)} for one in results for name in VERDICTS]
    )
    bars = (
        alt.Chart(rows, width=WIDTH - 200, height=alt.Step(18))
        .mark_bar()
        .encode(
            x=alt.X("measures:Q", title="measures"),
            y=alt.Y("result:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
            color=alt.Color(
                "verdict:N", scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
                legend=alt.Legend(orient="top", title=None),
            ),
            order=alt.Order("verdict:N"),
        )
    )  # fmt: skip
    return svg(bars)


def front(rows: list[Trained]) -> str:
    """Each model's quality against the processor time of the whole command; a line joins who is not beaten in both."""
    table = pd.DataFrame([vars(row) for row in rows])
    table["is_on_front"] = [
        not any(
            other.split == one.split and other.metric == one.metric and other.value >= one.value
            and other.cpu_seconds <= one.cpu_seconds
            and (other.value, other.cpu_seconds) != (one.value, one.cpu_seconds)
            for other in rows
        ) for one in rows
    ]  # fmt: skip
    base = alt.Chart(width=WIDTH // 2 - 20, height=260).encode(
        x=alt.X("cpu_seconds:Q", scale=alt.Scale(type="log", padding=20), title="CPU seconds (log)"),
        y=alt.Y("value:Q", scale=alt.Scale(zero=False, padding=24), title=None),
    )
    points = base.mark_point(filled=True, size=110).encode(
        color=alt.condition("datum.is_on_front", alt.value(BLUE), alt.value(GREY)),
    )
    line = base.transform_filter("datum.is_on_front").mark_line(color=BLUE, strokeDash=[6, 4], interpolate="step-after")
    names = base.mark_text(dy=-12).encode(text="model:N")
    told = table.assign(panel=table["split"] + ", " + table["metric"])
    panels = alt.layer(line, points, names, data=told).facet(facet=alt.Facet("panel:N", title=None), columns=2)
    return svg(panels.resolve_scale(y="independent", x="independent"))


def beside_published(rows: list[Trained]) -> str:
    """Each model's metric and the published one that it was held against."""
    table = pd.DataFrame(
        [{"what": f"{row.split}: {row.model} ({row.metric})", "whose": whose, "value": value}
         for row in rows if row.published is not None
         for whose, value in (("published", row.published), ("ours", row.value))]
    )  # fmt: skip
    drawn = (
        alt.Chart(table, width=WIDTH - 260, height=alt.Step(22))
        .mark_point(filled=True, size=100)
        .encode(
            x=alt.X("value:Q", scale=alt.Scale(zero=False), title=None),
            y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
            color=alt.Color(
                "whose:N", scale=alt.Scale(domain=["published", "ours"], range=[ORANGE, BLUE]),
                legend=alt.Legend(orient="top", title=None),
            ),
            shape=alt.Shape("whose:N", legend=None),
        )
    )  # fmt: skip
    return svg(drawn)


def costs(rows: list[Trained]) -> str:
    """Fit seconds and peak memory of each model, the dearest on top."""
    table = pd.DataFrame([{"what": f"{row.split}: {row.model}", **vars(row)} for row in rows])
    panels = [
        alt.Chart(table, width=WIDTH // 2 - 120, height=alt.Step(20), title=title)
        .mark_bar(color=colour)
        .encode(
            x=alt.X(f"max({column}):Q", title=None),
            y=alt.Y("what:N", title=None, sort="-x", axis=alt.Axis(labelLimit=240)),
        )
        for column, title, colour in (
            ("fit_seconds", "training, CPU seconds", BLUE), ("memory_gib", "peak memory, GiB", GREEN)
        )
    ]  # fmt: skip
    return svg(alt.hconcat(*panels))


def answers(rows: list[Trained]) -> str:
    """How long one user's list takes, from the median to the 99th percentile, and how large the model is, by framework;
    of the rows that say so."""
    table = pd.DataFrame(
        [{"what": f"{row.split}: {row.model}", **vars(row)} for row in rows if row.answer_p50_ms is not None]
    )
    colour = alt.Color("framework:N", legend=alt.Legend(orient="top", title=None))
    base = alt.Chart(table, width=WIDTH // 2 - 120, height=alt.Step(20)).encode(
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=240)), color=colour
    )
    scale = alt.Scale(type="log")
    span = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("answer_p50_ms:Q", scale=scale, title="milliseconds, p50 ● to p99 (log)"), x2="answer_p99_ms:Q"
    )
    middle = base.mark_point(filled=True, size=80).encode(x=alt.X("answer_p50_ms:Q", scale=scale))
    size = base.mark_bar().encode(x=alt.X("size_mib:Q", title="size of the model, MiB"))
    return svg(alt.hconcat(span + middle, size))


def latency(rows: list[tuple[str, float, float]]) -> str:
    """From the median to the 99th percentile of each measured load."""
    table = pd.DataFrame(rows, columns=["what", "p50", "p99"])
    base = alt.Chart(table, width=WIDTH - 320, height=alt.Step(22)).encode(
        y=alt.Y("what:N", title=None, sort="x", axis=alt.Axis(labelLimit=420))
    )
    scale = alt.Scale(type="log")
    span = base.mark_rule(color=GREY, strokeWidth=3).encode(x=alt.X("p50:Q", scale=scale), x2="p99:Q")
    middle = base.mark_point(filled=True, size=90, color=BLUE).encode(
        x=alt.X("p50:Q", scale=scale, title="milliseconds, median ● to 99th percentile ◆ (log)")
    )
    end = base.mark_point(filled=True, size=90, color=ORANGE, shape="diamond").encode(x=alt.X("p99:Q", scale=scale))
    return svg(span + middle + end)


def trade_off(rows: list[tuple[str, float, float, float]]) -> str:
    """What a list's quality pays for its variety, a line a method."""
    table = pd.DataFrame(rows, columns=["method", "trade_off", "ndcg", "diversity"])
    base = alt.Chart(table, width=WIDTH - 120, height=280).encode(
        x=alt.X("diversity:Q", scale=alt.Scale(zero=False, padding=16), title="diversity within a list"),
        y=alt.Y("ndcg:Q", scale=alt.Scale(zero=False, padding=16), title="ndcg@10"),
        color=alt.Color("method:N", scale=alt.Scale(range=[BLUE, ORANGE]), legend=alt.Legend(orient="top", title=None)),
    )
    line = base.mark_line(point=True).encode(order="trade_off:Q")
    return svg(line + base.mark_text(dy=-10).encode(text="trade_off:Q"))
