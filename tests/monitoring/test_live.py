"""The champion's quality, live: an alarm when people stop clicking, none when nothing changes, and a clean slate."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from mlflow import MlflowClient

from monitoring.live import watch
from recsys.artifacts import ALIAS_CHAMPION, REGISTERED_MODEL
from recsys.settings import Settings
from recsys.warehouse import connect

pytestmark = pytest.mark.services
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres", "mlflow").model_copy(update={"label_delay_seconds": 60})
    client = MlflowClient(settings.mlflow_url)
    assert watch(settings, NOW) == {"champion": None, "fell": False, "unchanged": True}
    client.create_registered_model(REGISTERED_MODEL)
    for _ in range(3):
        run = client.create_run("0")
        client.create_model_version(REGISTERED_MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
    return settings


def show(settings: Settings, version: str, rates: list[float], goes_on: bool = True) -> None:
    """Show one item to a hundred users in each minute, the last of which ended two minutes ago; each clicks with that
    minute's probability. With `goes_on` the stream has landed an event of now."""
    rng = np.random.default_rng(5)
    MlflowClient(settings.mlflow_url).set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, version)
    shown, clicks = [], []
    for minute, rate in enumerate(rates):
        for user in range(100):
            at = NOW - timedelta(minutes=len(rates) + 1 - minute) + timedelta(milliseconds=user)
            request = f"{version}-{minute}-{user}"
            shown.append((request, request, f"u{user}", "i", version, at))
            if rng.random() < rate:
                clicks.append((request, f"u{user}", "i", at, f'{{"request_id": "{request}"}}'))
    if goes_on:
        clicks.append((f"{version} now", "u1", "i", NOW, "{}"))
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into raw.impressions (event_id, request_id, user_id, item_id, model_version, shown_at, rank, score,"
            " domain, variant, propensity, rung)"
            " values (%s, %s, %s, %s, %s, %s, 1, 1, 'movies', 'champion', 1, 'personalised')",
            shown,
        )
        cursor.executemany(
            "insert into raw.interactions (event_id, user_id, item_id, occurred_at, context, domain, event_type,"
            " source, landed_partition) values (%s, %s, %s, %s, %s, 'movies', 'click', 'stream', 'stream')",
            clicks,
        )


def test_a_fall_is_an_alarm_that_no_later_look_takes_away_and_a_new_champion_begins_anew(settings):
    show(settings, "1", [0.4] * 8 + [0.1] * 3)
    assert watch(settings, NOW)["fell"]
    show(settings, "2", [0.4] * 4)
    said = watch(settings, NOW)
    assert (said["fell"], said["observed"]) == (False, "not judged: 400 requests")
    with connect(settings) as connection:
        rows = connection.execute(
            "select verdict, detail ->> 'fall' from monitoring.outcomes where check_name = 'live_quality'"
            " order by 1 desc"
        ).fetchall()
    assert [verdict for verdict, _ in rows] == ["warn", "pass"]
    assert 0.6 < float(rows[0][1]) < 0.9


def test_clicks_that_wait_in_the_log_are_no_fall_and_users_who_stay_away_are_one(settings):
    """The last three minutes of version 2 have no click: the stream is behind, or it is over; the rest went on."""
    with connect(settings) as connection:
        connection.execute("truncate raw.interactions, raw.impressions")
    show(settings, "2", [0.4] * 9 + [0.0] * 3, goes_on=False)
    assert not watch(settings, NOW)["fell"]
    assert watch(settings, NOW + timedelta(minutes=20))["fell"]


def test_the_same_as_before_is_no_alarm(settings):
    show(settings, "3", [0.4] * 12)
    said = watch(settings, NOW)
    assert (said["fell"], said["unchanged"]) == (False, True)
    assert not said["observed"].startswith("not judged")
