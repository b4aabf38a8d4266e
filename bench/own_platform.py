"""A whole platform of a bench's own, on free ports."""

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infra.local import platform as installation
from recsys.settings import Settings, load_settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def platform(var_dir: Path, data_dir: Path, more: Mapping[str, str]) -> Iterator[Settings]:
    """Run the whole platform below this folder, as `make up` does, with these further settings."""
    urls = ("MLFLOW", "AIRFLOW", "SERVING", "STREAMING", "DASHBOARD")
    os.environ.update(
        {f"RECSYS_{name}_URL": f"http://127.0.0.1:{free_port()}" for name in urls},
        RECSYS_VAR_DIR=str(var_dir), RECSYS_DATA_DIR=str(data_dir.resolve()),
        RECSYS_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}",
        RECSYS_POSTGRES_URL=f"postgresql://recsys:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/recsys",
        RECSYS_REDIS_URL=f"redis://:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/0", **more,
    )  # fmt: skip
    load_settings.cache_clear()
    try:
        installation.up(load_settings(), datetime.now(UTC).date())
        load_settings.cache_clear()
        yield load_settings()
    finally:
        installation.down(load_settings())
