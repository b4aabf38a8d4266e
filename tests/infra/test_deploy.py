"""Deploying a real registry's champion to the real serving process, and asking that one."""

import json
import os
import shutil
import urllib.request
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from infra.local import deploy as deployment
from infra.local.applications import serving
from infra.local.deploy import Version, deploy
from infra.local.smoke import smoke
from recsys import user_state
from recsys.artifacts import ALIAS_CHAMPION, ITEM_FEATURES, REGISTERED_MODEL, TAG_MODEL
from recsys.bundle import read_catalogue
from recsys.errors import CheckFailed, MissingArtifact, ServiceUnavailable, UnusableInput
from recsys.interval import Interval
from recsys.promotion import beside_folder
from recsys.retriever import Retriever
from recsys.split import live_split
from recsys.warehouse import connect
from tests.worlds.served import EVEN, ITEMS, ODD, write_world

INTERVAL = Interval(("movies",), date(2020, 1, 1))


def bundle(folder: Path, kind: str = "mean", backwards: bool = False) -> Path:
    return write_world(folder, kind, version=None, backwards=backwards)


class TestFolders:
    """The part that touches files only."""

    def test_a_placed_version_is_complete_and_names_itself(self, tmp_path):
        folder = deployment.put(bundle(tmp_path / "work" / "bundle"), tmp_path / "v1", Version("1", "run"))
        assert json.loads((folder / "deployment.json").read_text()) == {
            "model_version": "1",
            "run_id": "run",
            "registered_model": "recommender",
        }
        assert deployment.deployed(folder) == Version("1", "run")
        assert {path.name for path in folder.iterdir()} >= {"manifest.json", "items.json", "popularity.npy"}

    def test_the_same_version_of_another_run_takes_its_place(self, tmp_path):
        deployment.put(bundle(tmp_path / "one" / "bundle"), tmp_path / "v1", Version("1", "run one"))
        deployment.put(bundle(tmp_path / "two" / "bundle"), tmp_path / "v1", Version("1", "run two"))
        assert deployment.deployed(tmp_path / "v1") == Version("1", "run two")

    def test_what_is_no_bundle_is_refused_before_it_is_placed(self, tmp_path):
        (tmp_path / "work").mkdir()
        with pytest.raises(UnusableInput, match="model bundle"):
            deployment.put(tmp_path / "work", tmp_path / "v1", Version("1", "run"))
        assert not (tmp_path / "v1").exists()

    def test_the_link_always_points_at_a_whole_version(self, tmp_path, monkeypatch):
        """Each step of a flip leaves a readable link: the old version's or the new one's."""
        for number in ("1", "2"):
            deployment.put(bundle(tmp_path / number / "bundle"), tmp_path / f"v{number}", Version(number, "run"))
        link = tmp_path / "serving" / "current"
        assert deployment.flip(link, tmp_path / "v1") is None
        seen = []
        for name in ("unlink", "symlink_to", "replace"):
            original = getattr(Path, name)

            def spied(self, *arguments, original=original, **named):
                seen.append(deployment.deployed(link).number)
                result = original(self, *arguments, **named)
                seen.append(deployment.deployed(link).number)
                return result

            monkeypatch.setattr(Path, name, spied)
        assert deployment.flip(link, tmp_path / "v2") == tmp_path / "v1"
        assert len(seen) == 6
        assert seen == sorted(seen)
        assert seen[0] == "1"
        assert seen[-1] == "2"

    def test_a_flip_that_was_cut_short_does_not_hinder_the_next(self, tmp_path):
        deployment.put(bundle(tmp_path / "work" / "bundle"), tmp_path / "v1", Version("1", "run"))
        (tmp_path / ".current.unfinished").symlink_to(tmp_path / "nowhere")
        deployment.flip(tmp_path / "current", tmp_path / "v1")
        assert deployment.deployed(tmp_path / "current") == Version("1", "run")

    def test_only_old_versions_are_removed(self, tmp_path):
        for number in range(8):
            (tmp_path / f"v{number}").mkdir()
            os.utime(tmp_path / f"v{number}", (number, number))
        deployment.prune(tmp_path, {tmp_path / "v0", None})
        assert {path.name for path in tmp_path.iterdir()} == {"v0", "v3", "v4", "v5", "v6", "v7"}


@pytest.fixture(scope="module")
def settings(world, run_service):
    """A registry without champion, and serving without a model; Kafka is not there, which must not matter."""
    settings = world("postgres", "redis", "mlflow")
    run_service(serving(settings))
    return settings


@pytest.fixture(scope="module")
def register(settings, tmp_path_factory):
    """A function that registers a bundle as a new version, as training does, and makes it champion."""
    client = MlflowClient(settings.mlflow_url)

    def register(kind: str, backwards: bool = False, spoil=lambda folder: None, model: str | None = None) -> Version:
        folder = bundle(tmp_path_factory.mktemp("registered") / "bundle", kind, backwards)
        spoil(folder)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(folder), "model/artifacts/bundle")
        source = f"{run.info.artifact_uri}/model"
        tags = {TAG_MODEL: model} if model else {}
        version = client.create_model_version(REGISTERED_MODEL, source, run.info.run_id, tags)
        if model:  # one that is there to be compared
            return Version(str(version.version), run.info.run_id)
        client.set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, version.version)
        return Version(str(version.version), run.info.run_id)

    return register


@pytest.fixture(scope="module")
def first(settings, register):
    """The first deployment: what was registered and what the command said."""
    with pytest.raises(MissingArtifact, match="recommender@champion"):
        deploy(settings, INTERVAL)
    MlflowClient(settings.mlflow_url).create_registered_model(REGISTERED_MODEL)
    with pytest.raises(MissingArtifact, match="recommender@champion"):
        deploy(settings, INTERVAL)
    return register("mean"), deploy(settings, INTERVAL)


@pytest.mark.services
def test_the_champion_is_served_and_a_second_call_changes_nothing(settings, first):
    version, said = first
    assert said["unchanged"] is False
    assert (said["model_version"], said["run_id"], said["model"]) == (*version, "even_mean")
    assert said["former_version"] is None
    deployment.serves(settings.serving_url, version)
    modified = (settings.served_model / "manifest.json").stat().st_mtime_ns
    again = deploy(settings, INTERVAL)
    assert again["unchanged"] is True
    assert again["model_version"] == version.number
    assert (settings.served_model / "manifest.json").stat().st_mtime_ns == modified


@pytest.mark.services
def test_a_lost_link_is_made_again(settings, first):
    version, _ = first
    settings.served_model.unlink()
    assert deploy(settings, INTERVAL)["unchanged"] is False
    assert deployment.deployed(settings.served_model) == version


@pytest.mark.services
def test_the_smoke_test_passes_on_the_deployed_model_and_tells_every_fault(settings, first, tmp_path):
    users = (f"tiny:{number}" for number in range(1000))
    user = next(u for u in users if live_split(settings).of(u, date(2026, 12, 1)).variant == "champion")
    with connect(settings) as connection:
        connection.execute("create table marts.dim_users (user_id text, interaction_count bigint)")
    with pytest.raises(MissingArtifact, match=r"marts\.dim_users"):
        smoke(settings)
    with connect(settings) as connection:
        connection.execute("insert into marts.dim_users values (%s, 3), ('tiny:other', 2)", (user,))
    with pytest.raises(CheckFailed, match="has a history online"):
        smoke(settings)

    import redis

    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        user_state.add_events(client, user, [(item, datetime(2020, 1, 1, tzinfo=UTC)) for item in EVEN[:3]])
        user_state.move_version(client, user)
    said = smoke(settings)
    assert said["user_id"] == user
    assert said["checks"] > 40

    elsewhere = settings.model_copy(update={"model_dir": tmp_path / "model"})  # of which serving knows nothing
    shutil.copytree(settings.served_model, elsewhere.served_model)
    (elsewhere.served_model / "deployment.json").write_text(json.dumps({"model_version": "91"}))
    with pytest.raises(CheckFailed, match="known user: version"):
        smoke(elsewhere)


@pytest.mark.services
def test_the_facts_of_the_interval_lie_beside_the_bundle(settings, first):
    """Those of the latest row known at its end; a price and features that nobody knows are NaN."""
    with connect(settings) as connection:
        connection.execute("create table marts.dim_items (item_id text, price numeric)")
        connection.execute(
            "create table marts.feat_item_popularity (item_id text, event_timestamp timestamptz, "
            "item_interactions_total bigint, item_interactions_90d bigint, item_mean_rating double precision)"
        )
        connection.execute("insert into marts.dim_items values (%s, 9.5), (%s, null)", (EVEN[0], EVEN[1]))
        connection.cursor().executemany(
            "insert into marts.feat_item_popularity values (%s, %s, %s, 1, %s)",
            [(EVEN[0], "2019-06-01Z", 3, 4.0), (EVEN[0], "2020-01-01Z", 5, None), (EVEN[0], "2020-02-01Z", 9, 1.0)],
        )
    deployment.place_facts(settings, settings.served_model.resolve(), INTERVAL.end)
    catalogue = read_catalogue(settings.served_model).item_id
    with np.load(settings.served_model / "item_facts.npz") as facts:
        told = {name: dict(zip(catalogue, facts[name].tolist(), strict=True)) for name in facts.files}
    assert set(told) == {"price", *ITEM_FEATURES}
    assert (told["price"][EVEN[0]], told["item_interactions_total"][EVEN[0]]) == (9.5, 5.0)
    assert np.isnan(
        [told["item_mean_rating"][EVEN[0]], told["price"][EVEN[1]], told["item_interactions_90d"][ODD[0]]]
    ).all()


@pytest.mark.services
def test_a_large_catalogue_gets_an_index_tuned_for_users_of_the_warehouse(settings, tmp_path):
    """Large is what the setting says; with the setting raised the index goes."""
    folder = write_world(tmp_path / "v1", "ials")
    large = settings.model_copy(update={"approximate_from": 10})
    assert deployment.place_index(large, folder) is None  # nobody is known
    with connect(settings) as connection:
        connection.execute("create table marts.fct_interactions (user_id text, item_id text, occurred_at timestamptz)")
        connection.cursor().executemany(
            "insert into marts.fct_interactions values (%s, %s, '2020-01-01Z')",
            [(f"u{n}", item) for n in range(30) for item in (EVEN[n % 8], EVEN[(n + 1) % 8])],
        )
    recall = deployment.place_index(large, folder)
    assert recall >= deployment.INDEX_RECALL
    assert Retriever(folder).index_recall == recall
    assert deployment.place_index(settings, folder) is None
    assert Retriever(folder).index_recall is None


@pytest.mark.services
def test_a_model_that_serving_cannot_load_is_taken_back(settings, first, register, monkeypatch):
    before = deployment.deployed(settings.served_model)
    monkeypatch.setattr(deployment, "READY_SECONDS", 3)
    broken = register("mean", spoil=lambda folder: (folder / "item_vectors.npy").unlink())
    with pytest.raises(ServiceUnavailable, match=f"version {broken.number} was not taken"):
        deploy(settings, INTERVAL)
    assert deployment.deployed(settings.served_model) == before
    deployment.serves(settings.serving_url, before)


@pytest.mark.services
def test_the_next_champion_takes_over(settings, first, register):
    before = deployment.deployed(settings.served_model)
    version = register("ials", backwards=True)
    said = deploy(settings, INTERVAL)
    assert said["model_version"] == version.number
    assert said["former_version"] == before.number
    deployment.serves(settings.serving_url, version)


@pytest.mark.services
def test_the_latest_version_of_each_other_model_lies_beside_the_champion(settings, first, register):
    """Not the champion's own model; one without a bundle is told; what is wanted no longer goes."""
    register("popularity", model="popularity")
    latest = register("popularity", backwards=True, model="popularity")
    register("ials", model="even_mean")
    damaged = register("ials", spoil=lambda folder: (folder / "manifest.json").unlink(), model="damaged")
    left = beside_folder(settings) / "v0"
    left.mkdir(parents=True)
    register("mean")
    said = deploy(settings, INTERVAL)
    assert said["beside"] == [latest.number]
    assert set(said["not_beside"]) == {damaged.number}
    assert deployment.deployed(beside_folder(settings) / f"v{latest.number}") == latest
    assert not left.exists()

    with urllib.request.urlopen(f"{settings.serving_url}/v1/catalogue", timeout=10) as answer:
        offered = json.load(answer)["models"]
    assert [(one["model_version"], one["role"]) for one in offered] == [
        (said["model_version"], "champion"),
        (latest.number, "beside"),
    ]
    asked = f"{settings.serving_url}/v1/users/nobody/preview?k=1&model_version={latest.number}"
    with urllib.request.urlopen(asked, timeout=10) as answer:
        told = json.load(answer)
    assert (told["model_version"], told["items"][0]["item_id"]) == (latest.number, ITEMS[0])
