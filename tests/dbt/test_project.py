"""The rules of dbt-project-evaluator, read from the project's own manifest.

The package itself comes from dbt's hub only, which an installation without that site cannot reach; its rules are few
and plain. Left out are those about packages and about models that are too many to fan out to.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recsys.settings import HOME

LAYERS = {"staging": ("stg_",), "intermediate": ("int_",), "core": ("fct_", "dim_"), "features": ("feat_",),
          "analytics": ("agg_",), "insight": ("agg_",)}  # fmt: skip
WITHOUT_LOGIC = "staging"
"""Renames and casts: nothing to be wrong about that their unit test would show."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict:
    target, dbt = tmp_path_factory.mktemp("target"), Path(sys.executable).with_name("dbt")
    nowhere = {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "none"}
    given = {**nowhere, "DBT_TARGET_PATH": str(target)}
    said = '{"as_of": "2020-01-01", "domains": "movies"}'
    command = [dbt, "--quiet", "parse", "--project-dir", "dbt", "--profiles-dir", "dbt", "--vars", said]
    subprocess.run(command, cwd=HOME, env={**os.environ, **given}, check=True)
    return json.loads((target / "manifest.json").read_text())


@pytest.fixture(scope="module")
def models(manifest) -> dict[str, dict]:
    found = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    assert len(found) > 15
    return found


def layer(node: dict) -> str:
    return Path(node["original_file_path"]).parent.name


def test_names_say_the_layer(models):
    assert {node["name"] for node in models.values() if not node["name"].startswith(LAYERS[layer(node)])} == set()


def test_only_staging_reads_sources(models):
    """`raw.removed_interactions` and the tables of `monitoring` are our own: nothing to rename."""
    names = ("model_evaluations", "outcomes", "pipeline_runs")
    own = {"source.recsys.raw.removed_interactions", *(f"source.recsys.monitoring.{name}" for name in names)}
    reads = {
        node["name"]: {key for key in node["depends_on"]["nodes"] if key.startswith("source.")} - own
        for node in models.values()
    }
    assert {name for name, sources in reads.items() if sources and not name.startswith("stg_")} == set()
    assert all(len(sources) == 1 for name, sources in reads.items() if name.startswith("stg_"))


def test_staging_reads_no_model_and_no_source_feeds_two(manifest, models):
    for node in models.values():
        if layer(node) == "staging":
            assert not any(key.startswith("model.") for key in node["depends_on"]["nodes"]), node["name"]
    feeds = Counter(key for node in models.values() for key in node["depends_on"]["nodes"] if key.startswith("source."))
    assert len(feeds) == len(manifest["sources"])
    assert max(feeds.values()) == 1


def test_no_model_is_alone_and_none_hangs_in_the_air(models):
    assert {node["name"] for node in models.values() if not node["depends_on"]["nodes"]} == set()
    read = {key for node in models.values() for key in node["depends_on"]["nodes"]}
    assert {models[key]["name"] for key in models if layer(models[key]) in ("staging", "intermediate")} <= {
        models[key]["name"] for key in models if key in read
    }


def test_every_model_and_column_is_described(models):
    for node in models.values():
        assert node["description"], node["name"]
        assert node["columns"], node["name"]
        for column in node["columns"].values():
            assert column["description"], (node["name"], column["name"])


def test_every_mart_keeps_a_contract_and_a_key(models):
    marts = [node for node in models.values() if node["schema"] == "marts"]
    assert len(marts) > 10
    for node in marts:
        assert node["config"]["contract"]["enforced"], node["name"]
        keyed = any(index.get("unique") for index in node["config"].get("indexes", []))
        keyed |= any(constraint["type"] == "primary_key" for constraint in node["constraints"])
        assert keyed or node["config"]["materialized"] == "view", node["name"]


def test_every_model_with_logic_has_a_unit_test(manifest, models):
    tested = {test["model"] for test in manifest["unit_tests"].values()}
    assert {node["name"] for node in models.values() if layer(node) != WITHOUT_LOGIC} - tested == set()


def test_every_mart_is_somebodys(manifest, models):
    """What no exposure names, another model reads."""
    exposed = {key for exposure in manifest["exposures"].values() for key in exposure["depends_on"]["nodes"]}
    read = {key for node in models.values() for key in node["depends_on"]["nodes"]}
    assert {models[key]["name"] for key in models if key not in exposed | read} == set()
