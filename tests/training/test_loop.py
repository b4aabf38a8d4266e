"""The station from cut to champion on real services, run twice, and with processes that die half-way."""

import json
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest

from recsys import receipts
from recsys.artifacts import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    EXPERIMENT,
    EXPERIMENT_EVALUATIONS,
    REGISTERED_MODEL,
)
from recsys.errors import MissingArtifact, ServiceUnavailable, UnusableInput
from recsys.interval import Interval
from recsys.retriever import Retriever
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from tests.worlds import checkerboard
from training import dataset, point_in_time, tasks, tracking

INTERVAL = Interval(("movies",), checkerboard.AS_OF)
ARGUMENTS = ("--as-of", checkerboard.AS_OF.isoformat(), "--domains", "movies")
MODELS = ("popularity", "ials")

pytestmark = pytest.mark.services


class Killed(BaseException):
    """Stands for a process that ends at this very place."""


def build_marts(settings: Settings, fingerprint: str = "first build") -> None:
    with connect(settings) as connection:
        for table in ("fct_interactions", "dim_items", "feat_user_activity", "feat_item_popularity"):
            connection.execute(f"drop table if exists marts.{table}")
        checkerboard.write_marts(connection)
        for task in ("dbt.build", "feast.apply"):
            receipts.record(connection, task, receipts.key_of(task, INTERVAL.key), fingerprint, {})


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres", "mlflow")
    build_marts(settings)
    return settings


def station(*arguments: str) -> dict:
    """Run the station as Airflow does and return its line."""
    done = subprocess.run(
        [sys.executable, "-m", "training", *arguments, *ARGUMENTS], cwd=HOME, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def client(settings: Settings) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(settings.mlflow_url)


def versions(settings: Settings) -> dict[str, str]:
    found = client(settings).search_model_versions(f"name = '{REGISTERED_MODEL}'")
    return {str(version.version): version.run_id for version in found}


def bundle_bytes(settings: Settings, cut_id: str, name: str) -> dict[str, bytes]:
    folder = tasks.cut_folder(settings, cut_id) / "models" / name / "bundle"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def first_run(settings) -> dict[str, dict]:
    """What each command said, in the DAG's order; the first two through the shell."""
    said = {"cut": station("cut"), "fit popularity": station("fit", "--model=popularity")}
    said["fit ials"] = tasks.fit(settings, INTERVAL, "ials")
    said["evaluate"] = tasks.evaluate(settings, INTERVAL, MODELS)
    said["register"] = tasks.register(settings, INTERVAL, MODELS)
    said["promote"] = tasks.promote(settings, INTERVAL)
    return said


def evaluations(settings: Settings) -> list:
    experiment = client(settings).get_experiment_by_name(EXPERIMENT_EVALUATIONS)
    return client(settings).search_runs([experiment.experiment_id])


def run_of(settings: Settings, cut_id: str, model: str) -> str:
    experiment = client(settings).get_experiment_by_name(EXPERIMENT)
    wanted = f"tags.cut_id = '{cut_id}' and tags.model = '{model}'"
    return client(settings).search_runs([experiment.experiment_id], wanted)[0].info.run_id


def test_the_first_run_makes_the_better_model_champion(first_run):
    assert not any(said["unchanged"] for said in first_run.values())
    assert first_run["cut"]["items"] == checkerboard.ITEMS, "the film that is not available is no candidate"
    rows = {row["model"]: row for row in first_run["evaluate"]["table"]}
    assert rows["ials"]["ndcg_at_10"] > rows["popularity"]["ndcg_at_10"]
    assert rows["ials"]["difference_low"] > 0
    promoted = first_run["promote"]
    assert (promoted["model"], promoted["promoted"]) == ("ials", True)
    assert "beats popularity" in promoted["reason"]


def test_an_evaluation_is_a_run_with_parameters_metrics_plot_cost_and_where_it_came_from(settings, first_run):
    cut_id = first_run["evaluate"]["cut_id"]
    (run,) = evaluations(settings)
    assert run.info.status == "FINISHED"
    assert run.data.params["cut_id"] == cut_id
    for name in ("feature_service", "git_commit", "environment", "as_of", "domains"):
        assert run.data.params[name], name
    for name in MODELS:
        assert 0 <= run.data.metrics[f"{name}.ndcg_at_10"] <= 1
    assert run.data.metrics["cost_usd"] > 0
    assert [one.path for one in client(settings).list_artifacts(run.info.run_id)] == ["models.png"]
    with connect(settings) as connection:  # killed before its receipt
        connection.execute("delete from monitoring.receipts where task = 'training.evaluate'")
    station("evaluate", "--models", ",".join(MODELS))
    assert len(evaluations(settings)) == 1
    fit = client(settings).get_run(run_of(settings, cut_id, "ials"))
    assert fit.data.metrics["cost_usd"] > 0
    assert "python" in fit.data.tags["environment"]
    plots = [one.path for one in client(settings).list_artifacts(fit.info.run_id, "evaluation")]
    assert "evaluation/users.png" in plots


def test_a_second_run_changes_nothing(settings, first_run):
    before, made = versions(settings), first_run["cut"]["cut_id"]
    bundles = {name: bundle_bytes(settings, made, name) for name in MODELS}
    again = {
        "cut": tasks.cut(settings, INTERVAL),
        "fit popularity": tasks.fit(settings, INTERVAL, "popularity"),
        "fit ials": tasks.fit(settings, INTERVAL, "ials"),
        "evaluate": tasks.evaluate(settings, INTERVAL, MODELS),
        "register": tasks.register(settings, INTERVAL, MODELS),
        "promote": tasks.promote(settings, INTERVAL),
    }
    assert all(said["unchanged"] for said in again.values())
    assert again["promote"]["champion"] == first_run["promote"]["champion"]
    assert versions(settings) == before
    assert bundles == {name: bundle_bytes(settings, made, name) for name in MODELS}


def test_an_unchanged_task_imports_nothing_heavy(first_run):
    script = (
        "import sys; from training.__main__ import main; main(); "
        "print(sorted({'numpy', 'mlflow', 'torch', 'tensorflow', 'pandas', 'pyarrow', 'feast'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "fit", "--model=ials", *ARGUMENTS], cwd=HOME, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_registry_knows_where_each_version_came_from(settings, first_run):
    registry = client(settings)
    model = registry.get_registered_model(REGISTERED_MODEL)
    assert model.aliases[ALIAS_CHAMPION] == model.aliases[ALIAS_CHALLENGER] == first_run["promote"]["version"]
    tags = registry.get_model_version(REGISTERED_MODEL, first_run["promote"]["version"]).tags
    assert tags["model"] == "ials"
    assert tags["cut_id"] == first_run["cut"]["cut_id"]
    assert tags["as_of"].startswith(checkerboard.AS_OF.isoformat())
    assert {"git_commit", "feature_service", "ndcg_at_10", "framework", "domains"} <= set(tags)
    run = registry.get_run(first_run["promote"]["run_id"])
    assert {"training_seconds", "cpu_seconds", "peak_rss_mb", "recall_at_20", "coverage_at_20"} <= set(run.data.metrics)
    assert run.data.params["embedding_size"] == "64"
    assert run.data.params["seed"] == str(settings.seed)


def test_the_champion_answers_through_mlflow_as_its_bundle_does(settings, first_run, tmp_path):
    with tracking.reaching(settings):
        loaded = mlflow.pyfunc.load_model(f"models:/{REGISTERED_MODEL}@{ALIAS_CHAMPION}")
        history = ["toy:000", "toy:004", "no such item"]
        answer = loaded.predict(pd.DataFrame({"history": [history, []]}), params={"k": 4})
        bundle = tracking.fetch_bundle(first_run["promote"]["version"], tmp_path)
    retriever = Retriever(bundle)
    items, scores = retriever.recommend([retriever.indices(history), np.array([], np.int64)], 4)
    ids = np.array(retriever.catalogue.item_id)
    assert answer["item_id"].tolist() == [ids[row].tolist() for row in items]
    np.testing.assert_allclose(np.array(answer["score"].tolist()), scores, rtol=1e-6)
    written = bundle_bytes(settings, first_run["cut"]["cut_id"], "ials")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == written


def test_the_measures_are_rows_and_the_gate_is_an_outcome(settings, first_run):
    with connect(settings) as connection:
        rows = connection.execute(
            "select model, metric, value from monitoring.model_evaluations where cut_id = %s",
            (first_run["cut"]["cut_id"],),
        ).fetchall()
        gate = connection.execute(
            "select verdict, detail ->> 'model' from monitoring.outcomes where check_name = 'promotion_gate'"
        ).fetchall()
    said = {row["model"]: row["ndcg_at_10"] for row in first_run["evaluate"]["table"]}
    stored = {model: round(value, 4) for model, metric, value in rows if metric == "ndcg_at_10"}
    assert stored == said
    assert gate == [("pass", "ials")]


def test_an_evaluation_takes_the_place_of_all_that_its_cut_had(settings, first_run):
    def row(cut_id: str, model: str) -> tuple:
        return (cut_id, INTERVAL.as_of, model, "run", "ndcg_at_10", 0.5, "numpy")

    with connect(settings) as connection:
        tasks._write_evaluations(connection, "one", INTERVAL, [row("one", "a"), row("one", "b")])
        tasks._write_evaluations(connection, "one", INTERVAL, [row("one", "b")])
        tasks._write_evaluations(connection, "two", INTERVAL, [row("two", "c")])
        tasks._write_evaluations(connection, "three", INTERVAL, [row("three", "c")])
        left = connection.execute(
            "select cut_id, model from monitoring.model_evaluations where model in ('a', 'b', 'c') order by 1"
        ).fetchall()
        connection.rollback()
    assert left == [("one", "b"), ("three", "c")], "of the cut all goes, of the day's other cuts what was judged again"


def test_every_test_users_values_are_kept(settings, first_run):
    folder = tasks.cut_folder(settings, first_run["cut"]["cut_id"]) / "models" / "ials"
    kept = pd.read_parquet(folder / "per_user.parquet")
    assert len(kept) == first_run["cut"]["test_users"]
    row = next(row for row in first_run["evaluate"]["table"] if row["model"] == "ials")
    assert round(float(np.nanmean(kept["ndcg_at_10"])), 4) == row["ndcg_at_10"]


def test_new_data_makes_a_new_cut_and_the_same_quality_keeps_the_champion(settings, first_run):
    build_marts(settings, "second build")
    said = tasks.cut(settings, INTERVAL)
    assert said["cut_id"] != first_run["cut"]["cut_id"]
    assert not tasks.cut_folder(settings, first_run["cut"]["cut_id"]).exists(), "the cut it replaces is removed"
    with pytest.raises(MissingArtifact, match="fit of popularity"):
        tasks.evaluate(settings, INTERVAL, MODELS)
    for name in MODELS:
        assert not tasks.fit(settings, INTERVAL, name)["unchanged"]
    tasks.evaluate(settings, INTERVAL, MODELS)
    registered = tasks.register(settings, INTERVAL, MODELS)
    assert len(versions(settings)) == 2 * len(MODELS)
    promoted = tasks.promote(settings, INTERVAL)
    assert (promoted["promoted"], promoted["version"]) == (False, first_run["promote"]["version"])
    assert "does not beat the champion" in promoted["reason"]
    assert promoted["over_champion"]["difference"] == 0, "the champion was judged on the same users as the challenger"
    assert client(settings).get_registered_model(REGISTERED_MODEL).aliases[ALIAS_CHALLENGER] == registered["version"]


@pytest.mark.parametrize("place", ["publish_folder", "log_fit", "record"])
def test_a_fit_that_is_killed_is_done_again_and_counts_once(settings, first_run, monkeypatch, place):
    """Killed before its bundle has its name, after that, and after its MLflow run but before its receipt."""
    build_marts(settings, f"build before {place}")
    made = tasks.cut(settings, INTERVAL)["cut_id"]
    folder = tasks.cut_folder(settings, made) / "models" / "ials"

    def die(*arguments, **more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr({"publish_folder": dataset, "log_fit": tracking, "record": receipts}[place], place, die)
        with pytest.raises(Killed):
            tasks.fit(settings, INTERVAL, "ials")
    assert (folder / "bundle" / "manifest.json").is_file() == (place != "publish_folder")

    said = tasks.fit(settings, INTERVAL, "ials")
    Retriever(folder / "bundle")
    assert not list(folder.parent.glob(".*"))
    registry = client(settings)
    runs = registry.search_runs([tracking.experiment_id(registry)], f"tags.cut_id = '{made}' and tags.model = 'ials'")
    assert [run.info.run_id for run in runs] == [said["run_id"]]
    assert tasks.fit(settings, INTERVAL, "ials")["unchanged"]


def test_a_cut_that_is_killed_is_done_again(settings, first_run, monkeypatch):
    build_marts(settings, "build before the killed cut")

    def die(*arguments, **more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(receipts, "record", die)
        with pytest.raises(Killed):
            tasks.cut(settings, INTERVAL)
    said = tasks.cut(settings, INTERVAL)
    assert not said["unchanged"]
    assert tasks.cut(settings, INTERVAL)["unchanged"]
    assert len(dataset.Cut(tasks.cut_folder(settings, said["cut_id"])).items) == said["interactions_kept"]


def test_without_marts_the_cut_says_what_to_run_first(settings, first_run):
    with pytest.raises(MissingArtifact, match=r"dbt\.build"):
        tasks.cut(settings, Interval(("books",), checkerboard.AS_OF))
    with connect(settings) as connection:
        receipts.record(connection, "dbt.build", Interval(("books",), checkerboard.AS_OF).key, "x", {})
    with pytest.raises(UnusableInput, match="none of 0"):
        tasks.cut(settings, Interval(("books",), checkerboard.AS_OF))


def test_a_registry_that_does_not_answer_is_one_sentence(settings, first_run, monkeypatch):
    build_marts(settings, "build before the registry died")
    tasks.cut(settings, INTERVAL)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = settings.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    with pytest.raises(ServiceUnavailable, match="MLflow"):
        tasks.fit(dead, INTERVAL, "popularity")


def test_the_features_are_joined_point_in_time(settings, first_run):
    """The world's `user_interactions_total` counts the active days, so that each event must know those before it."""
    made = tasks.cut(settings, INTERVAL)["cut_id"]
    cut = dataset.Cut(tasks.cut_folder(settings, made))
    train, test = point_in_time.user_features(settings, cut)
    data = cut.training_data(train)
    assert len(data.items) > 100
    for user in np.unique(data.users):
        own = data.users == user
        before = np.arange(own.sum())  # one event a day; the first knows nothing
        np.testing.assert_array_equal(np.nan_to_num(train[own, 0]), before)
        assert np.isnan(train[own, 0][0])
    known = [len(history) for history in cut.requests().histories]
    np.testing.assert_array_equal(test[:, 0], np.array(known) - 1)
