"""Features from the online store, four ways, and into it, two ways.

    python -m bench.online_features [users]

Writes docs/results/online_features.md. The users' rows are made in the warehouse, brought online by the platform's
`materialize` and by Feast's, and then read: by `recsys.online_features`, by Feast in this process, by `feast serve`,
and by one MGET of rows packed by hand, which is the least that any of them could take.
"""

import os
import resource
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import httpx
import psycopg
import redis

from bench.live_world import platform
from bench.results import publish
from recsys import artifacts
from recsys.online_features import USER_ACTIVITY, read
from recsys.settings import HOME, Settings
from recsys.task import command_environment
from tests.ports import free_port
from tests.streaming.log import eventually

USERS, ROUNDS = 200_000, 1000
COMMAND = "python -m bench.online_features"


def times(call: Callable[[Sequence[str]], Any], asked: Sequence[Sequence[str]]) -> str:
    """Return the median and the 99th percentile of the calls, in ms; the first hundred are not counted."""
    taken = []
    for ids in asked:
        started = perf_counter()
        call(ids)
        taken.append(1000 * (perf_counter() - started))
    found = statistics.quantiles(taken[len(taken) // 10 :], n=100)
    return f"p50 {found[49]:.2f} ms, p99 {found[98]:.2f} ms"


def make_rows(settings: Settings, users: int) -> None:
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute(
            f"""
            insert into {artifacts.FEAT_USER_ACTIVITY}
            select 'live:' || n, timestamptz '2026-11-01 00:00+00' + (n %% 20) * interval '24 hours',
                n %% 997, n %% 31, n %% 499, (n %% 50) / 10.0
            from generate_series(0, %s - 1) as n
            """,
            (users,),
        )
        connection.execute(f"analyze {artifacts.FEAT_USER_ACTIVITY}")


def timed(command: Sequence[str], settings: Settings) -> tuple[float, float]:
    """Run a command; return its seconds and the most memory that it held, in MiB."""
    started = perf_counter()
    child = subprocess.Popen(
        command, cwd=HOME, env=settings.own_environment() | command_environment(settings), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command} ended with {child.returncode}")
    return perf_counter() - started, usage.ru_maxrss / 1024


def own_rate(settings: Settings, client: redis.Redis, users: int) -> tuple[float, float]:
    """Return the rows a second of the copy itself, and by how much this process grew meanwhile, in MiB."""
    from streaming.materialize import copy

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = perf_counter()
    rows = copy(settings, client, artifacts.FEAT_USER_ACTIVITY, USER_ACTIVITY, datetime(2026, 12, 1, tzinfo=UTC))
    seconds = perf_counter() - started
    if rows != users:
        raise SystemExit(f"{rows} rows read, {users} made")
    return rows / seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    users = int(sys.argv[1]) if len(sys.argv) > 1 else USERS
    table: list[dict[str, str]] = []

    def row(measure: str, target: str, measured: str) -> None:
        table.append({"measure": measure, "target": target, "measured": measured, "command": COMMAND})
        print(measure, measured, file=sys.stderr, flush=True)

    with (
        platform() as (settings, _),
        redis.Redis.from_url(settings.redis_url, single_connection_client=True) as client,
    ):
        make_rows(settings, users)
        rate, grown = own_rate(settings, client, users)
        row("materialization: rows a second", "≥ 50 000", f"{rate:,.0f}")
        row("materialization: growth of the process", "flat", f"{grown:.0f} MiB over {users:,} rows")
        used = client.info("memory")["used_memory_dataset"]
        row("Feast's keys in the store, a user", "none", f"{used / users:.0f} bytes")
        own = ("python", "-m", "streaming", "materialize", "--as-of=2026-12-01", "--domains=movies")
        feast = ("env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo", "materialize", "1970-01-01", "2026-12-01")
        for name, command in (("the platform's", own), ("`feast materialize`", feast)):
            client.flushdb()
            seconds, memory = timed(command, settings)
            measured = f"{users / seconds:,.0f} rows a second, {seconds:.1f} s, {memory:.0f} MiB"
            row(f"the whole command, its start included: {name}", "none", measured)

        os.environ.update(settings.child_environment())
        from feast import FeatureStore

        store = FeatureStore(repo_path=str(HOME / "feature_repo"))
        service = store.get_feature_service(artifacts.FEATURE_SERVICE_RETRIEVAL)
        client.mset({f"packed:{n}": struct.pack("<qqqd", 1, 2, 3, 4.5) for n in range(10_000)})
        port = free_port()
        serve = ("feast", "-c", "feature_repo", "serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log")
        log = (settings.var_dir / "feast.log").open("wb")
        server = subprocess.Popen(serve, cwd=HOME, env=command_environment(settings), stdout=log, stderr=log)
        try:
            http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
            eventually(lambda: healthy(http), seconds=180)
            ways: dict[str, Callable[[Sequence[str]], Any]] = {
                "recsys.online_features": lambda ids: read(client, USER_ACTIVITY, ids),
                "Feast in process": lambda ids: store.get_online_features(
                    service, entity_rows=[{"user_id": one} for one in ids]
                ).to_dict(),
                "`feast serve`": lambda ids: http.post(
                    "/get-online-features", json={"feature_service": service.name, "entities": {"user_id": list(ids)}}
                ).raise_for_status(),
                "a packed MGET": lambda ids: [
                    struct.unpack("<qqqd", raw) for raw in client.mget([f"packed:{one[5:]}" for one in ids])
                ],
            }
            for size, target in ((1, "p50 ≤ 0.15 ms"), (100, "p50 ≤ 1 ms")):
                asked = [[f"live:{(turn * size + n) % 10_000}" for n in range(size)] for turn in range(ROUNDS)]
                for name, call in ways.items():
                    few = asked[: 200 if "serve" in name else ROUNDS]
                    wanted = target if name == "recsys.online_features" else "none"
                    row(f"{name}: {size} user{'s' * (size > 1)}", wanted, times(call, few))
        finally:
            server.terminate()
            server.wait(30)
            log.close()
    publish("online_features", "Online features", table, "One connection, one call at a time; all on one machine.")


def healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
