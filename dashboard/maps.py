"""Maps: the communities of a domain as a plane, and pairs of domains as a square. Colours as in charts.py."""

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts import BLUE, GREY, ORANGE, PALETTE, SKY, VERMILION, room_for

TRANSFER = {"helps": BLUE, "harmless": SKY, "undecided": GREY, "negative transfer": VERMILION}
"""Verdict on a source of transfer → colour."""


def communities(rows: pd.DataFrame, links: pd.DataFrame) -> alt.LayerChart:
    """Communities as discs, their area the members, and lines as thick as the edges between them.

    Args:
        rows: community, x, y, members, users, items, internal, likes.
        links: source, target, edges.
    """
    place = rows.set_index("community")[["x", "y"]]
    ends = links.join(place, on="source").join(place.add_suffix("2"), on="target").dropna()
    axes = {"axis": None, "scale": alt.Scale(zero=False, padding=40)}
    drawn = (
        alt.Chart(ends)
        .mark_rule(color=GREY, opacity=0.45)
        .encode(
            x=alt.X("x:Q", **axes), y=alt.Y("y:Q", **axes), x2="x2:Q", y2="y2:Q",
            strokeWidth=alt.StrokeWidth("edges:Q", scale=alt.Scale(type="sqrt", range=[0.3, 7]), legend=None),
            tooltip=["source", "target", alt.Tooltip("edges:Q", format=",")],
        )
    )  # fmt: skip
    discs = (
        alt.Chart(rows)
        .mark_circle(opacity=0.92, stroke="#8a8f8c", strokeWidth=1)
        .encode(
            x=alt.X("x:Q", **axes), y=alt.Y("y:Q", **axes),
            size=alt.Size("members:Q", scale=alt.Scale(range=[80, 2600]), legend=None),
            color=alt.Color(
                "internal:Q", title="edges that stay inside", scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(orient="top", format=".0%", gradientLength=160),
            ),
            tooltip=[
                alt.Tooltip("community:O"), alt.Tooltip("users:Q", format=","), alt.Tooltip("items:Q", format=","),
                alt.Tooltip("internal:Q", title="edges that stay inside", format=".0%"), alt.Tooltip("likes:N"),
            ],
        )
    )  # fmt: skip
    by_size = rows.sort_values("members", ascending=False)
    label = room_for(by_size["name"], by_size["x"], by_size["y"])
    names = (
        alt.Chart(rows.assign(label=label))
        .mark_text(dy=26, color=GREY, fontSize=11)
        .encode(x=alt.X("x:Q", **axes), y=alt.Y("y:Q", **axes), text="label:N")
    )
    return (drawn + discs + names).properties(height=460)


def square(rows: pd.DataFrame, value: str, title: str, form: str) -> alt.LayerChart:
    """Pairs of domains, from the row to the column; a pair that cannot be judged is an empty cell with a dash."""
    base = alt.Chart(rows, height=alt.Step(52)).encode(
        x=alt.X("target_domain:N", title="to", axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("source_domain:N", title="from"),
        tooltip=[
            alt.Tooltip("source_domain:N", title="from"), alt.Tooltip("target_domain:N", title="to"),
            alt.Tooltip(f"{value}:Q", title=title, format=form), alt.Tooltip("users:Q", title="in both", format=","),
        ],
    )  # fmt: skip
    shades = base.mark_rect(stroke=GREY, strokeWidth=0.5).encode(
        color=alt.Color(
            f"{value}:Q", title=title, scale=alt.Scale(scheme="blues", domainMin=0),
            legend=alt.Legend(orient="bottom", format=form, gradientLength=160, titleLimit=400),
        )
    )  # fmt: skip
    half = float(rows[value].max() or 0) / 2
    words = base.mark_text(fontWeight="bold").encode(
        text=alt.condition(f"isValid(datum['{value}'])", alt.Text(f"{value}:Q", format=form), alt.value("–")),
        color=alt.condition(f"datum['{value}'] > {half}", alt.value("white"), alt.value("#1a1a1a")),
    )
    return shades + words


def before_and_after(rows: pd.DataFrame, names: dict[str, str]) -> alt.LayerChart:
    """For each segment what was expected, what came and what is expected now: three marks on one line."""
    told = rows.rename(columns=names).melt("segment", list(names.values()), "when", "value").dropna()
    order = list(names.values())
    base = alt.Chart(told, height=alt.Step(40)).encode(y=alt.Y("segment:N", title=None, sort=list(rows["segment"])))
    line = base.mark_rule(color=GREY).encode(x=alt.X("min(value):Q", title="revenue"), x2="max(value):Q")
    marks = base.mark_point(filled=True, size=110).encode(
        x=alt.X("value:Q", title="revenue", axis=alt.Axis(tickCount=5, format="~s")),
        shape=alt.Shape("when:N", sort=order, title=None),
        color=alt.Color(
            "when:N", sort=order, title=None, scale=alt.Scale(domain=order, range=[GREY, BLUE, ORANGE]),
            legend=alt.Legend(orient="top", labelLimit=400, columns=1),
        ),
        tooltip=["segment", "when", alt.Tooltip("value:Q", format=",.0f")],
    )  # fmt: skip
    return line + marks


def calibration(rows: pd.DataFrame) -> alt.LayerChart:
    """Mean purchases in the holdout, predicted and come, by purchase days before it."""
    told = rows.melt(["purchase_days", "customers"], ["predicted", "observed"], "which", "purchases")
    return (
        alt.Chart(told, height=260)
        .mark_line(point={"size": 70, "filled": True})
        .encode(
            x=alt.X("purchase_days:O", title="purchase days before (the last: and more)", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("purchases:Q", title="purchase days in the holdout"),
            color=alt.Color(
                "which:N", scale=alt.Scale(domain=["predicted", "observed"], range=[ORANGE, BLUE]),
                legend=alt.Legend(orient="top", title=None),
            ),
            strokeDash=alt.StrokeDash("which:N", sort=["observed", "predicted"], legend=None),
            tooltip=["purchase_days", "which", alt.Tooltip("purchases:Q", format=".2f"), "customers"],
        )
    )  # fmt: skip


def clouds(rows: pd.DataFrame) -> alt.LayerChart:
    """Each shape by requests a second and 99th percentile; area: dollars an hour; hollow: an estimate."""
    label = room_for(rows["shape"], np.log(rows["requests_per_s"]), rows["p99_ms"])
    base = alt.Chart(rows.assign(label=label), height=380).encode(
        x=alt.X("requests_per_s:Q", title="requests a second", scale=alt.Scale(type="log", padding=30, nice=False)),
        y=alt.Y("p99_ms:Q", title="99th percentile, ms", scale=alt.Scale(zero=False, padding=30)),
        tooltip=[
            "target", "shape", alt.Tooltip("p50_ms:Q", format=".1f"), alt.Tooltip("p99_ms:Q", format=".1f"),
            alt.Tooltip("requests_per_s:Q", format=",.0f"), alt.Tooltip("usd_per_hour:Q", format=".3f"),
            "is_estimate:N",
        ],
    )  # fmt: skip
    points = base.mark_point(strokeWidth=2).encode(
        color=alt.Color(
            "target:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None, columns=3)
        ),
        shape=alt.Shape("target:N"),
        size=alt.Size("usd_per_hour:Q", scale=alt.Scale(range=[60, 900]), legend=None),
        fillOpacity=alt.condition("datum.is_estimate", alt.value(0), alt.value(0.8)),
        fill=alt.Fill("target:N", scale=alt.Scale(range=PALETTE), legend=None),
    )
    return points + base.mark_text(dy=-22, color=GREY).encode(text="label:N")


def cloud_costs(rows: pd.DataFrame, cost: str, title: str) -> alt.Chart:
    """One bar a shape, coloured by target."""
    named = rows.assign(what=rows["target"] + " " + rows["shape"])
    return (
        alt.Chart(named, height=alt.Step(26))
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X(f"{cost}:Q", title=title),
            y=alt.Y("what:N", title=None, sort="x", axis=alt.Axis(labelLimit=260)),
            color=alt.Color("target:N", scale=alt.Scale(range=PALETTE), legend=None),
            tooltip=["target", "shape", alt.Tooltip(f"{cost}:Q", title=title, format=",.4~g"), "is_estimate:N"],
        )
    )


def verdicts(rows: pd.DataFrame) -> alt.LayerChart:
    """What the source changes in the target's ndcg@10, with the interval; the dashed line is nothing."""
    base = alt.Chart(rows, height=alt.Step(26)).encode(
        y=alt.Y("what:N", title=None, axis=alt.Axis(labelLimit=320)),
        color=alt.Color(
            "verdict:N", title=None, legend=alt.Legend(orient="top", columns=2),
            scale=alt.Scale(domain=list(TRANSFER), range=list(TRANSFER.values())),
        ),
        tooltip=[
            "what", "verdict", alt.Tooltip("alone:Q", format=".4f"), alt.Tooltip("transferred:Q", format=".4f"),
            alt.Tooltip("low:Q", format="+.4f"), alt.Tooltip("high:Q", format="+.4f"),
            alt.Tooltip("users:Q", format=","),
        ],
    )  # fmt: skip
    zero = alt.Chart().mark_rule(color=GREY, strokeDash=[5, 4], aria=False).encode(x=alt.datum(0))
    spans = base.mark_rule(strokeWidth=3, opacity=0.6).encode(x=alt.X("low:Q", title="change in ndcg@10"), x2="high:Q")
    points = base.mark_point(filled=True, size=90).encode(x="difference:Q", shape=alt.Shape("verdict:N", legend=None))
    return alt.layer(zero, spans, points, data=rows)


def items(rows: pd.DataFrame) -> alt.Chart:
    """Items of all domains; neighbours are alike in the vectors that domains share."""
    axes = {"axis": None, "scale": alt.Scale(zero=False, padding=20)}
    return (
        alt.Chart(rows, height=460)
        .mark_point(filled=True, opacity=0.75, size=40)
        .encode(
            x=alt.X("x:Q", **axes),
            y=alt.Y("y:Q", **axes),
            color=alt.Color(
                "domain:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None, columns=4)
            ),
            shape=alt.Shape("domain:N"),
            tooltip=["title:N", "domain:N"],
        )
    )
