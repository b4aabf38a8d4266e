"""The serving process as it runs: real Redis and Kafka, its own environment, and each of them going away."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import redis
from kafka import KafkaConsumer

from infra.local.applications import python_of
from recsys import user_state
from recsys.artifacts import TOPIC_IMPRESSIONS, TOPIC_INTERACTIONS
from recsys.schemas import Impression, Interaction, ShownList
from recsys.settings import HOME, Settings
from tests.ports import free_port
from tests.serving.gate import Gate
from tests.serving.patience import eventually
from tests.worlds.served import EVEN, FILMS, ODD, POPULAR, write_world

pytestmark = pytest.mark.services
EVENT = {"user_id": "ml-1m:17", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}
VERTEX_ROUTE = "/v1/models/m:predict"


@pytest.fixture
def settings(world) -> Settings:
    return world("redis", "kafka")


@pytest.fixture(scope="module")
def dead() -> dict[str, str]:
    """Addresses where nobody listens."""
    return {
        "RECSYS_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "RECSYS_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
    }


@pytest.fixture(scope="module")
def alone(world, dead, tmp_path_factory) -> Iterator[httpx.Client]:
    """A process without any service, started as Vertex AI starts it."""
    folder = tmp_path_factory.mktemp("alone")
    deploy(folder)
    vertex = {"AIP_HTTP_PORT": str(free_port()), "AIP_HEALTH_ROUTE": "/v1/health", "AIP_PREDICT_ROUTE": VERTEX_ROUTE}
    with serving(folder, **dead, **vertex) as (client, _):
        yield client


def deploy(var_dir: Path, broken: bool = False, **how: object) -> None:
    """Deploy a bundle as `infra` does: write it aside, then move the link. A broken one lacks its items."""
    serving = var_dir / "serving"
    folder = serving / f"bundle-{len(list(serving.glob('bundle-*')))}" if serving.exists() else serving / "bundle-0"
    link = serving / "next"
    write_world(folder, **how)
    if broken:
        (folder / "items.json").unlink()
    link.symlink_to(folder)
    link.replace(serving / "current")


@contextmanager
def serving(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """A serving process of its own var_dir, alive (not necessarily ready)."""
    address = environment.get("RECSYS_SERVING_URL", f"http://127.0.0.1:{free_port()}").rstrip("/")
    port = urlsplit(address).port
    log = tmp_path / "serving.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python_of("serving"), "-m", "serving", *arguments],
            cwd=HOME,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "RECSYS_VAR_DIR": str(tmp_path),
                "RECSYS_SERVING_URL": address,
                "RECSYS_VARIANT_WEIGHTS": '{"champion": 1}',
            }
            | environment,
        )
    port = int(environment.get("AIP_HTTP_PORT", port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

        def alive() -> None:
            if process.poll() is not None:
                pytest.fail(log.read_text())
            assert client.get("/healthz").status_code == 200

        try:
            eventually(alive)
            yield client, process
        finally:
            process.terminate()
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
    ours = [f'File "{HOME / folder}/' for folder in ("serving", "recsys")]  # kafka-python logs its own lost sockets
    assert not [line for line in log.read_text().splitlines() if line.strip().startswith(tuple(ours))]


def recommendations(client: httpx.Client, user_id: str, **params: object) -> dict:
    answer = client.get(f"/v1/users/{user_id}/recommendations", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def metric(client: httpx.Client, series: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(series)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def learn(settings: Settings, user_id: str, items: list[str]) -> None:
    """Put a user's events into the store, as streaming does."""
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        user_state.add_events(store, user_id, [(item, start + timedelta(minutes=n)) for n, item in enumerate(items)])
        user_state.move_version(store, user_id)


def shown_in(messages: list) -> list[Impression]:
    """Return the impressions that these messages hold."""
    return [one for message in messages for one in ShownList.model_validate_json(message.value).impressions()]


def read_topic(settings: Settings, topic: str, wanted: Callable[[list], bool]) -> list:
    """Return the messages of a topic from its beginning, once what is wanted is among them."""
    consumer = KafkaConsumer(
        settings.topic_prefix + topic, bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest"
    )
    messages: list = []

    def arrived() -> None:
        for batch in consumer.poll(timeout_ms=200).values():
            messages.extend(batch)
        assert wanted(messages), f"{len(messages)} messages of {topic}"

    try:
        eventually(arrived)
    finally:
        consumer.close()
    return messages


def test_a_click_and_the_shown_items_reach_their_topics(settings, tmp_path):
    learn(settings, "ml-1m:17", EVEN[:2])
    deploy(tmp_path, version="3")
    with serving(tmp_path) as (client, _):
        answer = recommendations(client, "ml-1m:17", k=3)
        assert (answer["rung"], [item["item_id"] for item in answer["items"]]) == ("personalised", EVEN[2:5])

        def accepted() -> None:
            click = client.post("/v1/events", json=EVENT | {"request_id": answer["request_id"], "event_id": "click-1"})
            assert (click.status_code, click.json()) == (202, {"event_id": "click-1"}), click.text

        eventually(accepted)  # the connection to the log may still be on its way
        clicks = read_topic(settings, TOPIC_INTERACTIONS, lambda found: any(b"click-1" in m.value for m in found))
        shown = read_topic(settings, TOPIC_IMPRESSIONS, bool)

        def counted() -> None:
            assert metric(client, 'recsys_published_total{outcome="acknowledged",topic="impressions.v1"}') == 3

        eventually(counted)  # the carrier tells of it a moment later
    (message,) = [message for message in clicks if b"click-1" in message.value]
    click = Interaction.model_validate_json(message.value)
    assert (message.key, click.item_id) == (b"ml-1m:17", FILMS[0])
    assert click.context == {"request_id": answer["request_id"]}
    impressions = sorted(shown_in(shown), key=lambda i: i.rank)
    assert {message.key for message in shown} == {b"ml-1m:17"}
    assert [(i.rank, i.item_id) for i in impressions] == list(enumerate(EVEN[2:5], start=1))
    assert {(i.request_id, i.model_version, i.propensity, i.rung) for i in impressions} == {
        (answer["request_id"], "3", 1.0, "personalised")
    }


def test_with_everything_dead_it_answers_at_once_and_refuses_events(alone):
    for _ in range(20):
        answer = recommendations(alone, "ml-1m:17", k=2)
        assert (answer["rung"], [item["item_id"] for item in answer["items"]]) == ("popular", POPULAR[:2])
    refused = alone.post("/v1/events", json=EVENT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert metric(alone, 'recsys_dependency_errors_total{dependency="redis"}') >= 3
    route = 'recsys_request_seconds_{}{{route="/v1/users/{{user_id}}/recommendations"}}'
    seconds, requests = (metric(alone, route.format(part)) for part in ("sum", "count"))
    assert requests >= 20
    assert seconds / requests < 0.2  # none waited for a dead service


@pytest.mark.parametrize("fault", ["shut", "silence"])
def test_redis_goes_away_and_comes_back(settings, tmp_path, dead, fault):
    learn(settings, "ml-1m:18", EVEN[:2])
    deploy(tmp_path)
    url = urlsplit(settings.redis_url)
    gate = Gate(url.hostname, url.port)
    through_gate = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{gate.port}")).geturl()
    kafka = {"RECSYS_KAFKA_BOOTSTRAP": dead["RECSYS_KAFKA_BOOTSTRAP"]}

    def personalised() -> None:
        assert recommendations(client, "ml-1m:18")["rung"] == "personalised"

    with serving(tmp_path, RECSYS_REDIS_URL=through_gate, **kafka) as (client, _):
        eventually(personalised)
        getattr(gate, fault)()
        waited = []
        for _ in range(30):
            answer = client.get("/v1/users/ml-1m:18/recommendations")
            assert (answer.status_code, answer.json()["rung"]) == (200, "popular")
            waited.append(answer.elapsed.total_seconds())
        errors = metric(client, 'recsys_dependency_errors_total{dependency="redis"}')
        assert 3 <= errors < 30  # the breaker let only the first ones and some probes through
        assert sum(waited) / len(waited) < 0.5
        gate.open()
        eventually(personalised)
    gate.close()


def test_kafka_that_comes_late_gets_what_waited(settings, tmp_path):
    deploy(tmp_path)
    host, port = settings.kafka_bootstrap.rsplit(":", 1)
    gate = Gate(host, int(port))
    gate.shut()
    with serving(tmp_path, RECSYS_KAFKA_BOOTSTRAP=f"127.0.0.1:{gate.port}") as (client, _):
        request_id = recommendations(client, "late", k=4)["request_id"]
        assert client.post("/v1/events", json=EVENT).status_code == 503
        gate.open()

        def accepted() -> None:
            assert client.post("/v1/events", json=EVENT | {"event_id": "late"}).status_code == 202

        eventually(accepted)
        found = read_topic(
            settings, TOPIC_IMPRESSIONS,
            lambda messages: any(request_id.encode() in message.value for message in messages),
        )  # fmt: skip
        assert metric(client, "recsys_impressions_dropped_total{") == 0
    assert [i.rank for i in shown_in(found) if i.request_id == request_id] == [1, 2, 3, 4]
    gate.close()


def test_a_first_model_and_then_others_are_picked_up_without_a_failed_request(settings, tmp_path, dead):
    (tmp_path / "serving").mkdir()
    with serving(tmp_path, **dead) as (client, _):
        assert client.get("/readyz").status_code == 503
        assert client.get("/v1/users/u/recommendations").json()["error"]["code"] == "unavailable"
        deploy(tmp_path, version="1")
        eventually(lambda: check_ready(client, "1"))
        stop, answers = threading.Event(), []

        def ask() -> None:
            with httpx.Client(base_url=client.base_url) as own:
                while not stop.is_set():
                    answers.append(own.get("/v1/users/u/recommendations", params={"k": 16}))

        def asked() -> None:
            assert len(answers) >= 10

        def counted() -> None:
            assert metric(client, 'recsys_model_reloads_total{outcome="broken"}') == 1

        with ThreadPoolExecutor() as threads:
            asking = [threads.submit(ask) for _ in range(2)]
            try:
                eventually(asked)
                for version in ("2", "3", "4"):
                    deploy(tmp_path, version=version, backwards=version == "2")
                    eventually(lambda version=version: check_ready(client, version))
                deploy(tmp_path, version="5", broken=True)
                eventually(counted)
            finally:
                stop.set()
        for thread in asking:
            thread.result()
        check_ready(client, "4")
    assert {answer.status_code for answer in answers} == {200}
    seen = [answer.json() for answer in answers]
    assert {answer["model_version"] for answer in seen} >= {"1", "4"}
    for answer in seen:
        items = [item["item_id"] for item in answer["items"]]
        assert items == (POPULAR[::-1] if answer["model_version"] == "2" else POPULAR)


def check_ready(client: httpx.Client, version: str) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json().get("model_version")) == (200, version)


def test_of_two_processes_at_one_address_one_may_be_killed(tmp_path, dead):
    deploy(tmp_path)
    with serving(tmp_path, "serve", "--share-port", **dead) as (client, first):
        shared = {"RECSYS_SERVING_URL": str(client.base_url), **dead}
        with serving(tmp_path, "serve", "--share-port", **shared) as (_, second):
            eventually(lambda: check_listening(second))  # till then the first one answers for both
            eventually(lambda: check_carrier_leads_a_group(first))
            first.kill()
            first.wait()
            with httpx.Client(base_url=client.base_url, transport=httpx.HTTPTransport(retries=3)) as again:
                answers = [again.get("/v1/users/u/recommendations").status_code for _ in range(20)]
    assert answers == [200] * 20


def check_carrier_leads_a_group(process: subprocess.Popen) -> None:
    """Whoever ends what a killed process left of its group does not end what it left to be carried."""
    (carrier,) = psutil.Process(process.pid).children()
    assert os.getpgid(carrier.pid) == carrier.pid != os.getpgid(process.pid)


def check_listening(process: subprocess.Popen) -> None:
    assert process.poll() is None
    assert psutil.CONN_LISTEN in {socket.status for socket in psutil.Process(process.pid).net_connections("tcp")}


def test_on_sigterm_it_ends_soon_and_loses_no_impression(settings, tmp_path):
    deploy(tmp_path)
    with serving(tmp_path) as (client, process):
        shown = {recommendations(client, f"drained:{n}", k=16)["request_id"] for n in range(50)}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}
    found = read_topic(
        settings, TOPIC_IMPRESSIONS,
        lambda messages: sum(b"drained:" in message.value for message in messages) >= 50,
    )  # fmt: skip
    drained = [impression for impression in shown_in(found) if impression.user_id.startswith("drained:")]
    assert len(drained) == len({impression.event_id for impression in drained}) == 800
    assert {impression.request_id for impression in drained} == shown


def test_vertex_says_where_to_listen(alone):
    assert alone.get("/v1/health").status_code == 200
    answer = alone.post(VERTEX_ROUTE, json={"instances": [{"user_id": "u", "items": [ODD[0]], "k": 2}]})
    (prediction,) = answer.json()["predictions"]
    assert [item["item_id"] for item in prediction["items"]] == ODD[1:3]


def test_a_large_body_is_refused_over_the_wire(alone):
    answer = alone.post("/v1/events", content=b" " * 1_600_000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert alone.get("/healthz").status_code == 200


def test_the_environment_is_thin():
    heavy = ("torch", "tensorflow", "pandas", "feast", "mlflow")
    code = f"from importlib.util import find_spec; print([name for name in {heavy} if find_spec(name)])"
    result = subprocess.run([python_of("serving"), "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    assert result.stdout.strip() == "[]"
