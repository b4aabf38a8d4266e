"""Serve the dashboard at the address in the settings, until it is stopped."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

from streamlit.web import cli

from recsys.settings import load_settings


def main() -> None:
    address = urlsplit(load_settings().dashboard_url)
    sys.argv = [
        "streamlit", "run", str(Path(__file__).with_name("app.py")),
        f"--server.address={address.hostname}", f"--server.port={address.port}",
        "--server.headless=true", "--browser.gatherUsageStats=false",
    ]  # fmt: skip
    cli.main()


if __name__ == "__main__":
    main()
