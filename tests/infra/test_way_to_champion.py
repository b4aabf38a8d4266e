"""The whole way on a real registry, warehouse and serving process: each look judges, moves and lets serving follow, as
the DAG `recsys_promotion` does. Only the users are made up: they ask the real API, and click what they are shown."""

import random
import threading
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from mlflow import MlflowClient

from experiments.judge import judge
from infra.local.applications import serving
from infra.local.deploy import deploy, deployed
from infra.local.follow import follow
from infra.local.rollback import rollback
from infra.registry import champion
from recsys.artifacts import ALIAS_CHAMPION, REGISTERED_MODEL
from recsys.errors import MissingArtifact, RecsysError, ServiceUnavailable
from recsys.interval import Interval
from recsys.promotion import WAY, Stage
from recsys.registry import candidacies
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.infra.test_rollback import read_only
from tests.worlds.served import write_world
from training.move import LOCK, enter, move

pytestmark = pytest.mark.services
USERS = [f"u{number}" for number in range(5_000)]
SHOWN = 5
MOST_LOOKS = 40


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def settings(world, run_service) -> Settings:
    settings = world("postgres", "redis", "mlflow").model_copy(
        update={"promotion_min_users": 30, "promotion_planned_users": 10_000}
    )
    run_service(serving(settings))
    MlflowClient(settings.mlflow_url).create_registered_model(REGISTERED_MODEL)
    return settings


@pytest.fixture(scope="module")
def register(settings, tmp_path_factory):
    def one() -> tuple[str, str]:
        client = MlflowClient(settings.mlflow_url)
        folder = write_world(tmp_path_factory.mktemp("registered") / "bundle", version=None)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(folder), "model/artifacts/bundle")
        version = client.create_model_version(REGISTERED_MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
        return str(version.version), run.info.run_id

    return one


@pytest.fixture(scope="module")
def first(settings, register) -> str:
    number, _ = register()
    MlflowClient(settings.mlflow_url).set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, number)
    deploy(settings, Interval(("movies",), date(2026, 11, 1)))
    return number


def ask(settings: Settings, clicked: dict[str, float]) -> dict[str, int]:
    """Let every user ask once, see the list and click with the probability of the version that answered; the stream's
    rows are written as the consumer would. Return how many users each version answered."""
    answered: dict[str, int] = {}
    chance, shown, clicks = random.Random(7), [], []
    with httpx.Client(base_url=settings.serving_url, timeout=30) as client:
        for start in range(0, len(USERS), 100):
            asked = [{"user_id": user, "k": SHOWN} for user in USERS[start : start + 100]]
            for answer in client.post("/v1/recommendations:batch", json={"requests": asked}).json()["answers"]:
                version, user, request, at = answer["model_version"], answer["user_id"], answer["request_id"], clock()
                answered[version] = answered.get(version, 0) + 1
                for item in answer["items"]:
                    row = (request, user, item["item_id"], item["rank"], answer["variant"], version)
                    shown.append((f"{request}/{item['rank']}", *row, at))
                    if chance.random() < clicked.get(version, 0.15):
                        click = (f"c{request}{item['rank']}", user, item["item_id"], at + timedelta(microseconds=1))
                        clicks.append((*click, f'{{"request_id": "{request}"}}'))
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into raw.impressions (event_id, request_id, user_id, item_id, rank, variant, model_version, score,"
            " domain, propensity, rung, shown_at) values (%s, %s, %s, %s, %s, %s, %s, 1, 'movies', 0.9, 'popular', %s)",
            shown,
        )
        cursor.executemany(
            "insert into raw.interactions (event_id, user_id, item_id, occurred_at, context, domain, event_type,"
            " source, landed_partition) values (%s, %s, %s, %s, %s, 'movies', 'click', 'stream', 'stream')",
            clicks,
        )
    return answered


def look(settings: Settings) -> dict:
    """What one run of the DAG does."""
    judge(settings, clock())
    moved = move(settings, clock())
    return {**moved, "followed": follow(settings, clock)}


def go(settings: Settings, version: str, clicked: dict[str, float]) -> tuple[list[Stage], list[dict], float]:
    """Look and ask until the version is not under way any more; return its stages, serving's changes, and the largest
    share of the users that it answered."""
    stages, changes, largest = [Stage.CANDIDATE], [], 0.0
    for _ in range(MOST_LOOKS):
        said = look(settings)
        if said["moved"]:
            stages.append(said["stage"])
            changes.append(said["followed"])
        if not stages[-1].is_under_way:
            return stages, changes, largest
        answered = ask(settings, clicked)
        largest = max(largest, answered.get(version, 0) / len(USERS))
    raise AssertionError(f"still under way after {MOST_LOOKS} looks: {stages}")


def moves(settings: Settings, version: str) -> dict[str, dict]:
    with connect(settings) as connection:
        return dict(
            connection.execute(
                "select split_part(subject, '/', 2), detail from monitoring.outcomes"
                " where check_name = 'promotion' and subject like %s",
                (f"{version}/%",),
            ).fetchall()
        )


def test_a_better_version_goes_the_whole_way_and_no_request_fails(settings, first, register):
    number, run_id = register()
    enter(settings, number, run_id, "it won on past data", clock())
    statuses, stop = [], threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=settings.serving_url) as client:
            while not stop.wait(0.01):
                statuses.append(client.get("/v1/users/nobody/recommendations").status_code)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        stages, changes, _ = go(settings, number, {number: 0.30})
    finally:
        stop.set()
        asking.join()

    assert tuple(stages) == WAY
    assert champion(settings.mlflow_url).number == deployed(settings.served_model).number == number
    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert max(change["seconds"] for change in changes) <= 5
    with httpx.Client(base_url=settings.serving_url) as client:
        ready = client.get("/readyz").json()
    assert (ready["model_version"], ready["candidate"]) == (number, None)
    rows = moves(settings, number)
    assert set(rows) == {stage.value for stage in WAY[1:]}
    assert rows["canary_25"]["evidence"]["gain_low"] > 0
    assert rows["canary_1"]["evidence"]["shadow"]["answered"] >= 30

    again = look(settings)
    assert (again["moved"], again["followed"]["unchanged"]) == (False, True)
    back = rollback(settings, "ops", clock())
    assert (back["from"], back["to"]) == (number, first)
    assert look(settings)["followed"]["unchanged"]
    assert deployed(settings.served_model).number == first


def test_a_worse_version_is_rolled_back_and_nobody_beyond_ten_per_cent_sees_it(settings, first, register):
    before = champion(settings.mlflow_url).number
    number, run_id = register()
    enter(settings, number, run_id, "it won on past data", clock())
    stages, _, largest = go(settings, number, {number: 0.05})

    assert stages[-1] is Stage.ROLLED_BACK
    assert not {Stage.CANARY_25, Stage.CANARY_50}.intersection(stages)
    assert largest <= 0.12
    assert champion(settings.mlflow_url).number == deployed(settings.served_model).number == before
    assert "it is worse" in moves(settings, number)["rolled_back"]["candidacy"]["why"]
    assert {number} != set(ask(settings, {})) == {before}


def test_one_at_a_time_the_latest_first_and_a_lost_row_is_written(settings, first, register):
    early, late = register(), register()
    for number, run_id in (early, late):
        enter(settings, number, run_id, "it won", clock())
    said = look(settings)
    assert (said["candidate"], said["stage"]) == (late[0], Stage.SHADOW)
    assert "is later" in moves(settings, early[0])["rolled_back"]["candidacy"]["why"]
    assert enter(settings, *early, "again", clock()).stage is Stage.ROLLED_BACK

    third = register()
    enter(settings, *third, "it won", clock())
    assert look(settings)["candidate"] == late[0]
    with connect(settings) as connection:
        connection.execute("delete from monitoring.outcomes where subject = %s", (f"{late[0]}/shadow",))
    move(settings, clock())
    assert "whose row is lost" in observed(settings, f"{late[0]}/shadow")

    for number in (late[0], third[0]):
        assert move(settings, clock(), back=number, why="enough")["stage"] is Stage.ROLLED_BACK
    with pytest.raises(MissingArtifact, match="under way: 77"):
        move(settings, clock(), back="77")
    assert look(settings)["followed"]["candidate"] is None


def observed(settings: Settings, subject: str) -> str:
    with connect(settings) as connection:
        (observed,) = connection.execute(
            "select observed from monitoring.outcomes where check_name = 'promotion' and subject = %s", (subject,)
        ).fetchone()
    return observed


def test_a_read_only_registry_and_two_movers_move_nothing(settings, first, register):
    number, run_id = register()
    enter(settings, number, run_id, "it won", clock())
    with read_only(settings) as closed, pytest.raises(ServiceUnavailable, match="403"):
        move(closed, clock())
    assert moves(settings, number) == {}
    assert next(one for one in candidacies(settings.mlflow_url) if one.version == number).stage is Stage.CANDIDATE
    with connect(settings) as connection:
        connection.execute(LOCK)
        with pytest.raises(RecsysError, match="another process moves"):
            move(settings, clock())
    assert move(settings, clock(), back=number)["moved"]


def test_a_bot_moves_no_candidate(settings, first, register):
    """One user clicks a version ten thousand times a minute; nobody else clicks it less or more than the champion's."""
    number, run_id = register()
    enter(settings, number, run_id, "it won", clock())
    look(settings)
    ask(settings, {})
    look(settings)
    assert look(settings)["stage"] == Stage.CANARY_1
    ask(settings, {})
    at = clock()
    with connect(settings) as connection:
        ((user,),) = connection.execute(
            "select user_id from raw.impressions where model_version = %s limit 1", (number,)
        ).fetchall()
        connection.execute(
            "insert into raw.interactions (event_id, user_id, item_id, occurred_at, domain, event_type, source,"
            " landed_partition) select 'bot' || n, %s, 'i1', %s - n * interval '1 millisecond', 'movies', 'click',"
            " 'stream', 'stream' from generate_series(1, 10000) as n",
            (user, at),
        )
    seen = judge(settings, clock())
    assert seen["bots"] == 1
    assert seen["harm_high"] > 0 > seen["gain_low"]
    assert move(settings, clock(), back=number)["moved"]
