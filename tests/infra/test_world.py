"""The tests' own ground: each module's world is real and its own."""

import os
import subprocess
import sys
from contextlib import closing

import psycopg
import redis
from kafka import KafkaProducer
from mlflow import MlflowClient

from infra.local import broker
from recsys.artifacts import TOPIC_INTERACTIONS
from recsys.settings import HOME, load_settings
from tests.conftest import empty_mlflow


def test_the_database_is_fresh_and_has_the_schema(world):
    settings = world("postgres")
    with psycopg.connect(settings.postgres_url) as connection:
        assert connection.execute("select count(*) from raw.interactions").fetchone() == (0,)
        assert connection.info.dbname.startswith("world_")


def test_redis_keeps_and_is_not_the_default_database(world):
    settings = world("redis")
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        client.set("greeting", "hello")
        assert client.get("greeting") == "hello"
        assert client.connection_pool.connection_kwargs["db"] > 0


def test_settings_and_children_see_the_same_world(world):
    settings = world("postgres")
    assert load_settings().postgres_url == settings.postgres_url
    assert load_settings().var_dir == settings.var_dir
    child = subprocess.run(
        [sys.executable, "-c", "from recsys.settings import load_settings; print(load_settings().postgres_url)"],
        cwd=HOME, capture_output=True, text=True, check=True, env=os.environ.copy(),
    )  # fmt: skip
    assert child.stdout.strip() == settings.postgres_url


def test_kafka_has_the_topics_of_this_world(world):
    settings = world("kafka")
    topic = settings.topic_prefix + TOPIC_INTERACTIONS
    with closing(KafkaProducer(bootstrap_servers=settings.kafka_bootstrap)) as producer:
        sent = producer.send(topic, key=b"u", value=b"{}").get(timeout=20)
    assert sent.topic == topic
    with broker.admin(settings) as client:
        assert set(broker.topics_of(settings)) <= set(client.list_topics())
    broker.create_topics(settings)


def test_mlflow_starts_empty(world):
    settings = world("mlflow")
    client = MlflowClient(settings.mlflow_url)
    assert client.search_registered_models() == []
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    client.create_registered_model("recommender")
    run = client.create_run(client.create_experiment("recsys"))
    client.log_text(run.info.run_id, "hello", "greeting.txt")
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["greeting.txt"]
    empty_mlflow(settings)
    assert client.search_registered_models() == []
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    client.create_experiment("recsys")
