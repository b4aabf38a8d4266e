"""The warehouse's own pages: dbt's docs of the marts that were built last, with their lineage and columns."""

import json
from pathlib import Path

from infra.local.stores import LOOPBACK
from recsys.errors import MissingArtifact
from recsys.settings import Settings
from recsys.task import command_environment, run_command
from recsys.warehouse import connect

DBT = ("dbt", "--quiet", "docs")
PROJECT = ("--project-dir", "dbt", "--profiles-dir", "dbt")


def write(settings: Settings) -> Path:
    """Write the pages of the last complete build and return the folder that holds them.

    Raises:
        MissingArtifact: nothing was built yet.
        RecsysError: dbt fails; ServiceUnavailable: PostgreSQL does not answer.
    """
    with connect(settings) as connection:
        built = connection.execute("select to_regclass('intermediate.builds')").fetchone() != (None,)
        query = "select as_of::text, domains from intermediate.builds where state = 'complete'"
        last = connection.execute(query).fetchone() if built else None
    if last is None:
        raise MissingArtifact("marts", "none", "Run the pipeline first: `make demo`")
    said = json.dumps({"as_of": last[0], "domains": last[1]})
    run_command([*DBT, "generate", *PROJECT, "--vars", said], command_environment(settings))
    return settings.var_dir / "dbt" / "target"


def serve(settings: Settings, port: int) -> None:
    """Write the pages and serve them on loopback until interrupted."""
    write(settings)
    command = [*DBT, "serve", *PROJECT, "--host", LOOPBACK, "--port", str(port), "--no-browser"]
    run_command(command, command_environment(settings))
