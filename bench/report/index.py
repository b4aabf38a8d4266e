"""The index of docs/results: every page with its date and its verdicts, and every target that was missed."""

from pathlib import Path

from bench.report import results
from recsys.settings import HOME

NAME = "README.md"
HEAD = """# What was measured

Each page comes from a script in [bench](../../bench), which names the machine and the date. This index is written with
every page. A target is judged where its row says `met` or `MISSED`, or where it is a plain bound (`p99 ≤ 15 ms`); the
others are left to the reader. `none`: a figure without a target.
"""
TABLE = (
    "| page | measured on | met | missed | not judged | without a target |",
    "| --- | --- | --- | --- | --- | --- |",
)


def write(folder: Path) -> None:
    """Write the folder's index anew from the pages in it."""
    (folder / NAME).write_text(text(folder))


def text(folder: Path) -> str:
    """Return the index; pages whose data have another shape than rows are named without verdicts.

    Raises:
        ValueError: the folder holds no results.
    """
    told = results.read(folder)
    lines = [HEAD, *TABLE]
    for one in sorted(told, key=lambda one: one.title.lower()):
        bare = sum(row.target in results.NO_TARGET for row in one.rows)
        counts = (one.count("met"), one.count("missed"), one.count("told") - bare, bare)
        shown = " | ".join(str(count or "") for count in counts)
        lines.append(f"| [{one.title}]({one.name}.md) | {one.date} | {shown} |")
    rowless = sorted({path.stem for path in folder.glob("*.md")} - {one.name for one in told} - {Path(NAME).stem})
    lines += [f"| [{_title(folder / f'{name}.md')}]({name}.md) | see there | | | | |" for name in rowless]
    lines += ["", "## Missed", ""]
    for one in told:
        lines += [
            f"- [{one.title}]({one.name}.md): {row.measure}. Target {row.target}; measured {row.measured}"
            for row in one.rows
            if row.verdict == "missed"
        ]
    return "\n".join(lines) + "\n"


def _title(page: Path) -> str:
    return page.read_text().splitlines()[0].removeprefix("# ")


if __name__ == "__main__":
    write(HOME / "docs" / "results")
