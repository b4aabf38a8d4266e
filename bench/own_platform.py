"""A whole platform of a bench's own, on free ports."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infra.local import platform as installation
from recsys.settings import Settings, load_settings
from tests.ports import free_port


def addresses() -> dict[str, str]:
    """Return settings of free ports and of passwords that nobody else has."""
    urls = ("MLFLOW", "AIRFLOW", "SERVING", "STREAMING", "DASHBOARD")
    return {f"RECSYS_{name}_URL": f"http://127.0.0.1:{free_port()}" for name in urls} | {
        "RECSYS_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "RECSYS_POSTGRES_URL": f"postgresql://recsys:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/recsys",
        "RECSYS_REDIS_URL": f"redis://:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/0",
        "RECSYS_RECORDS_URL": f"redis://:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/0",
    }


def kept_addresses(note: Path) -> dict[str, str]:
    """Return the addresses that this file holds; where there is none, new ones, which it then holds."""
    if not note.exists():
        note.touch(0o600)
        note.write_text(json.dumps(addresses()))
    return json.loads(note.read_text())


@contextmanager
def platform(
    var_dir: Path, data_dir: Path, more: Mapping[str, str], at: Mapping[str, str] | None = None
) -> Iterator[Settings]:
    """Run the whole platform below this folder, as `make up` does, with these further settings."""
    os.environ.update(
        {**(at or addresses()), "RECSYS_VAR_DIR": str(var_dir), "RECSYS_DATA_DIR": str(data_dir.resolve()), **more}
    )
    load_settings.cache_clear()
    try:
        installation.up(load_settings(), datetime.now(UTC).date())
        load_settings.cache_clear()
        yield load_settings()
    finally:
        installation.down(load_settings())
