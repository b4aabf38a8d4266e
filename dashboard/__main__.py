"""Serve the dashboard at the address in the settings, until it is stopped.

What the pages are made with is imported and used once before the address opens, so that the first visitor does not
wait for it; the health check, which answers from then on, includes it.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from streamlit.web import cli

from dashboard import charts, figures, filters, judgements, maps
from recsys.settings import load_settings

PAGE_MODULES = (charts, figures, filters, judgements, maps)
"""What the views import; Python keeps it for them."""


def warm() -> int:
    """Draw one chart as a page would, its image included, and return its bytes: the chart's grammar and its renderer
    are read when they are first used."""
    rows = pd.DataFrame({"day": pd.to_datetime(["2026-01-01", "2026-01-02"]), "value": [1.0, 2.0]})
    return len(figures.png(charts.lines(rows, "day", {"value": "value"})))


def main() -> None:
    warm()
    address = urlsplit(load_settings().dashboard_url)
    sys.argv = [
        "streamlit", "run", str(Path(__file__).with_name("app.py")),
        f"--server.address={address.hostname}", f"--server.port={address.port}",
        "--server.headless=true", "--browser.gatherUsageStats=false",
    ]  # fmt: skip
    cli.main()


if __name__ == "__main__":
    main()
