"""Charts: one look for all pages. Everybody can tell their colours apart, and no chart leans on colour alone."""

import altair as alt
import numpy as np
import pandas as pd

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION]
"""Okabe and Ito (2008), without black and yellow, which vanish on one of the two grounds."""

GREY = "#8a8f8c"


def lines(rows: pd.DataFrame, day: str, values: dict[str, str]) -> alt.Chart:
    """One panel a value (column → what it is called) over the days, each with its own scale."""
    panels = [
        alt.Chart(rows, height=150)
        .mark_line(point={"size": 18, "color": colour}, color=colour, strokeWidth=2)
        .encode(
            x=alt.X(f"{day}:T", title=None),
            y=alt.Y(f"{column}:Q", title=name, axis=alt.Axis(tickCount=4, tickMinStep=1)),
            tooltip=[alt.Tooltip(f"{day}:T", title="day"), alt.Tooltip(f"{column}:Q", title=name, format=",.4~g")],
        )
        for (column, name), colour in zip(values.items(), PALETTE, strict=False)
    ]
    return alt.vconcat(*panels, spacing=18)


def bars(
    rows: pd.DataFrame, value: str, name: str, text_format: str = ".3~g", highlight: str | None = None
) -> alt.Chart:
    """Horizontal bars, the largest on top, the values written beside them."""
    base = alt.Chart(rows).encode(
        y=alt.Y(f"{name}:N", sort="-x", title=None, axis=alt.Axis(labelLimit=220)),
        x=alt.X(f"{value}:Q", title=None, axis=alt.Axis(tickCount=5, format=text_format)),
    )
    colour = alt.condition(alt.datum[name] == highlight, alt.value(GREY), alt.value(BLUE))
    labels = base.mark_text(align="left", dx=5).encode(
        text=alt.Text(f"{value}:Q", format=text_format), color=alt.value(GREY)
    )
    return (base.mark_bar(cornerRadiusEnd=3, height={"band": 0.62}).encode(color=colour) + labels).properties(
        height=alt.Step(34)
    )


def room_for(names: pd.Series, x: pd.Series, y: pd.Series) -> pd.Series:
    """Return the names, empty where one would lie on another: the first of a crowd keeps its name.

    Vega-Lite places labels without looking at each other. Nearness is measured in the plane that the points span.
    """
    place = [(values - values.min()) / ((values.max() - values.min()) or 1) for values in (x, y)]
    kept: list[tuple[float, float]] = []
    labels = []
    for name, across, up in zip(names, *place, strict=True):
        is_free = all(abs(across - other[0]) > 0.14 or abs(up - other[1]) > 0.07 for other in kept)
        labels.append(name if is_free else "")
        if is_free and name:
            kept.append((across, up))
    return pd.Series(labels, index=names.index)


def frontier(rows: pd.DataFrame) -> alt.LayerChart:
    """Each model by what it achieves and what an answer costs: up and left is better; a line joins the Pareto front."""
    rows = rows.sort_values("is_on_front", ascending=False, kind="stable")
    label = room_for(rows["model"], np.log(rows["inference_p50_ms"].clip(lower=1e-3)), rows["ndcg_at_10"])
    base = alt.Chart(rows.assign(label=label), height=360).encode(
        x=alt.X(
            "inference_p50_ms:Q", scale=alt.Scale(type="log", nice=True), title="milliseconds an answer (log)",
            axis=alt.Axis(tickCount=4),
        ),
        y=alt.Y("ndcg_at_10:Q", title="ndcg_at_10", scale=alt.Scale(zero=False, padding=24)),
    )  # fmt: skip
    front = base.transform_filter("datum.is_on_front")
    points = base.mark_point(size=130, filled=True).encode(
        color=alt.Color(
            "framework:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None, columns=3)
        ),
        shape=alt.Shape("framework:N"),
        opacity=alt.condition("datum.is_on_front", alt.value(1), alt.value(0.55)),
        tooltip=[
            "model", "framework", alt.Tooltip("ndcg_at_10:Q", format=".4f"),
            alt.Tooltip("inference_p50_ms:Q", format=".3f"), alt.Tooltip("training_seconds:Q", format=".1f"),
        ],
    )  # fmt: skip
    line = front.mark_line(color=GREY, strokeDash=[6, 4], interpolate="step-after")
    names = front.mark_text(dy=-14, color=GREY).encode(text="label:N")
    others = base.transform_filter("!datum.is_on_front").mark_text(dy=16, color=GREY).encode(text="label:N")
    return line + points + names + others


def history(rows: pd.DataFrame, metric: str) -> alt.Chart:
    """Each model's metric from data cut to data cut; shapes tell the models apart as colours do."""
    return (
        alt.Chart(rows, height=280)
        .mark_line(point={"size": 60, "filled": True})
        .encode(
            x=alt.X("as_of:T", title="data before"),
            y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "model:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None, columns=3)
            ),
            strokeDash=alt.StrokeDash("model:N", legend=None),
            tooltip=["model", "as_of", alt.Tooltip("value:Q", format=".4f"), "cut_id"],
        )
    )


def funnel(rows: pd.DataFrame, steps: list[str]) -> alt.LayerChart:
    """How many users of each variant came how far; the steps from top to bottom."""
    base = alt.Chart(rows, height=alt.Step(22)).encode(
        y=alt.Y("variant:N", title=None, axis=alt.Axis(labelLimit=200)),
        yOffset=alt.YOffset("step:N", sort=steps),
        x=alt.X("users:Q", title="users", axis=alt.Axis(tickCount=4, format="d")),
        tooltip=["variant", "step", "users"],
    )
    colour = alt.Color(
        "step:N", sort=steps, scale=alt.Scale(domain=steps, range=[SKY, BLUE, ORANGE]),
        legend=alt.Legend(orient="top", title=None, labelLimit=400, columns=1),
    )  # fmt: skip
    labels = base.mark_text(align="left", dx=5, color=GREY).encode(text=alt.Text("users:Q", format=","))
    return base.mark_bar(cornerRadiusEnd=3).encode(color=colour) + labels


def spark(rows: pd.DataFrame, day: str, value: str) -> alt.Chart:
    """A small line without axes, for beside a number."""
    return (
        alt.Chart(rows, height=46)
        .mark_area(line={"color": BLUE, "strokeWidth": 2}, color=BLUE, opacity=0.25)
        .encode(
            x=alt.X(f"{day}:T", axis=None),
            y=alt.Y(f"{value}:Q", axis=None, scale=alt.Scale(zero=False)),
            tooltip=[f"{day}:T", alt.Tooltip(f"{value}:Q", format=",.4~g")],
        )
        .properties(padding=0)
    )


def retention(rows: pd.DataFrame, as_share: bool) -> alt.Chart:
    """Cohorts by age; a cell of a small cohort or of a month that has not ended is faint."""
    value, title, form = ("retention", "still active", ".0%") if as_share else ("active_users", "active users", ",")
    return (
        alt.Chart(rows, height=alt.Step(17))
        .mark_rect(stroke="#0000", strokeWidth=1)
        .encode(
            x=alt.X(
                "age_months:O", title="months since the first event", axis=alt.Axis(labelAngle=0, labelOverlap=True)
            ),
            y=alt.Y("cohort_month:O", title=None, timeUnit="utcyearmonth", sort="descending"),
            color=alt.Color(
                f"{value}:Q",
                title=title,
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(orient="top", format=form),
            ),
            opacity=alt.condition("datum.is_small_cohort || !datum.is_complete", alt.value(0.35), alt.value(1)),
            tooltip=[
                alt.Tooltip("cohort_month:T", timeUnit="utcyearmonth", title="cohort"),
                alt.Tooltip("age_months:O", title="age"),
                alt.Tooltip("active_users:Q", title="active"),
                alt.Tooltip("cohort_users:Q", title="of"),
                alt.Tooltip("retention:Q", format=".1%"),
                alt.Tooltip("is_complete:N", title="month has ended"),
            ],
        )
    )


def over_time(rows: pd.DataFrame, day: str, value: str, series: str, form: str) -> alt.Chart:
    """One line a series over the days; dashes tell the lines apart as colours do."""
    return (
        alt.Chart(rows, height=240)
        .mark_line(point={"size": 40, "filled": True})
        .encode(
            x=alt.X(f"{day}:T", title=None),
            y=alt.Y(f"{value}:Q", title=None, axis=alt.Axis(format=form, tickCount=5)),
            color=alt.Color(f"{series}:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None)),
            strokeDash=alt.StrokeDash(f"{series}:N", legend=None),
            tooltip=[f"{series}:N", f"{day}:T", alt.Tooltip(f"{value}:Q", format=form)],
        )
    )


def intervals(rows: pd.DataFrame, what: str, series: str, title: str, form: str) -> alt.LayerChart:
    """A point and its interval (`value`, `low`, `high`) for each row of `what`, the series beside each other."""
    base = alt.Chart(rows, height=alt.Step(24)).encode(
        y=alt.Y(f"{what}:N", title=None, axis=alt.Axis(labelLimit=240)),
        yOffset=alt.YOffset(f"{series}:N"),
        color=alt.Color(f"{series}:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None)),
        tooltip=[
            f"{what}:N", f"{series}:N", alt.Tooltip("value:Q", title=title, format=form),
            alt.Tooltip("low:Q", format=form), alt.Tooltip("high:Q", format=form), alt.Tooltip("users:Q", format=","),
        ],
    )  # fmt: skip
    spans = base.mark_rule(strokeWidth=3, opacity=0.6).encode(x="low:Q", x2="high:Q")
    points = base.mark_point(filled=True, size=90).encode(
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format=form, tickCount=5)),
        shape=alt.Shape(f"{series}:N", legend=None),
    )
    return spans + points


def plain(text: str) -> str:
    """Return a text as it is meant inside of Markdown: no markup, no formula, no icon of it comes alive."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!|<>~:$" else letter for letter in text)


def lifts(rows: pd.DataFrame) -> alt.LayerChart:
    """Each variant's lift (`lift`, `low`, `high`) from reading to reading; bands and dashes tell them apart."""
    base = alt.Chart(rows, height=300).encode(
        x=alt.X("outcome_date:T", title=None),
        color=alt.Color("variant:N", scale=alt.Scale(range=PALETTE), legend=alt.Legend(orient="top", title=None)),
    )
    bands = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="lift"), y2="high:Q")
    line = base.mark_line(point={"size": 60, "filled": True}).encode(
        y=alt.Y("lift:Q", title="lift", axis=alt.Axis(format="+.0%", tickCount=6)),
        strokeDash=alt.StrokeDash("variant:N", legend=None),
        tooltip=[
            "variant", "outcome_date:T", alt.Tooltip("lift:Q", format="+.1%"), alt.Tooltip("low:Q", format="+.1%"),
            alt.Tooltip("high:Q", format="+.1%"),
        ],
    )  # fmt: skip
    ends = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y="low:Q", y2="high:Q")
    zero = alt.Chart().mark_rule(color=GREY, strokeDash=[5, 4], aria=False).encode(y=alt.datum(0))
    return alt.layer(zero, bands, ends, line, data=rows)


VERDICT_COLOURS = {"fail": VERMILION, "warn": ORANGE, "pass": BLUE}


def verdicts(rows: pd.DataFrame) -> alt.Chart:
    """Judgements of each day, stacked by verdict, failures at the bottom."""
    return (
        alt.Chart(rows, height=220)
        .mark_bar()
        .encode(
            x=alt.X("outcome_date:T", title=None),
            y=alt.Y("sum(judgements):Q", title="judgements"),
            color=_verdict_colour(),
            order=alt.Order("verdict:N"),
            tooltip=["outcome_date:T", "verdict", alt.Tooltip("sum(judgements):Q", title="judgements")],
        )
    )


def verdict_map(rows: pd.DataFrame) -> alt.LayerChart:
    """One cell a subject and day, coloured and marked by its verdict."""
    base = alt.Chart(rows, height=alt.Step(22)).encode(
        x=alt.X("outcome_date:T", timeUnit="utcyearmonthdate", title=None),
        y=alt.Y("subject:N", title=None, axis=alt.Axis(labelLimit=220)),
        tooltip=["outcome_date:T", "subject", "verdict", "observed", "expected"],
    )
    marks = (
        base.transform_filter("datum.verdict != 'pass'")
        .mark_text(fontWeight="bold", color="white")
        .encode(text=alt.condition("datum.verdict == 'fail'", alt.value("✕"), alt.value("▲")))
    )
    return base.mark_rect(stroke="#0000").encode(color=_verdict_colour()) + marks


def _verdict_colour() -> alt.Color:
    return alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=list(VERDICT_COLOURS), range=list(VERDICT_COLOURS.values())),
        legend=alt.Legend(orient="top", title=None),
    )
