"""Drawings as SVG text, to be put into a page. The same numbers give the same text."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

COLOUR = "#2563eb"
SIZE = (9.0, 3.2)  # inches
MOST_TICKS = 16
LONGEST_NAME = 40  # characters

# A fixed salt for the ids of clip paths; text stays text, so that it can be searched.
STYLE = {"svg.hashsalt": "recsys", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}


def bars(names: Sequence[str], heights: Sequence[int], what: str = "events", is_lying: bool = False) -> str:
    """Draw one bar a name; lying ones, the first on top, for long names."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        places = range(len(names))
        shown = [_plain(name) for name in names]
        if is_lying:
            axes.barh(places, heights, color=COLOUR)
            axes.set_yticks(places, shown)
            axes.invert_yaxis()
            axes.set_xlabel(what)
        else:
            axes.bar(places, heights, color=COLOUR)
            axes.set_xticks(places, shown, rotation=45 if len(names) > 8 else 0)
            axes.set_ylabel(what)
        return _svg(figure)


def line(names: Sequence[str], heights: Sequence[int], what: str = "events") -> str:
    """Draw a line over ordered names, of which some are written."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot(range(len(names)), heights, color=COLOUR, marker="o" if len(names) < 3 else None)
        step = -(-len(names) // MOST_TICKS)
        axes.set_xticks(range(0, len(names), step), [_plain(name) for name in names[::step]], rotation=45)
        axes.set_ylabel(what)
        axes.set_ylim(bottom=0)
        return _svg(figure)


def lorenz(parts: Sequence[int]) -> str:
    """Draw the running share of these equal parts of the items, the most popular first."""
    total, running, shares = sum(parts), 0, [0.0]
    for part in parts:
        running += part
        shares.append(running / total)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        percent = [100 * place / len(parts) for place in range(len(shares))]
        axes.plot(percent, shares, color=COLOUR)
        axes.plot([0, 100], [0, 1], color="#999", linestyle=":")
        axes.set_xlabel("most popular items, per cent")
        axes.set_ylabel("share of events")
        return _svg(figure)


def heat(grid: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """Draw a table of numbers as shades."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        figure.colorbar(axes.pcolormesh(grid, cmap="Blues", vmin=0), ax=axes)
        axes.set_xticks([place + 0.5 for place in range(len(columns))], columns)
        axes.set_yticks([place + 0.5 for place in range(len(rows))], rows)
        axes.invert_yaxis()
        return _svg(figure)


def _plain(name: str) -> str:
    """Return a name that is drawn as it stands: a dollar sign would begin a formula."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")


def _svg(figure: Figure) -> str:
    """Return the drawing without the XML prologue, which has no place inside a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
