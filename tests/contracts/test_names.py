"""R7: names of tables, topics, features, models and DAGs agree everywhere with `recsys/artifacts.py`."""

import json
import re
import subprocess
import sys

import pytest

from dashboard.marts import COLUMNS as DASHBOARD_COLUMNS
from recsys import artifacts, columns
from recsys.settings import HOME
from streaming.privacy import TABLES as ERASED_TABLES
from tests.contracts import names

BY_DBT = (f"{artifacts.MARTS}.", f"{artifacts.INTERMEDIATE}.")
MARTS = {table for table in names.TABLES if table.startswith(BY_DBT)}


def test_no_name_is_spelled_twice():
    assert names.second_spellings(HOME) == []


def test_sql_names_only_known_tables():
    assert names.unknown_tables(HOME) == []


@pytest.mark.parametrize(
    "name", ["marts.fct_interactions", "interactions.v1", "ranking_v1", "two_tower", "recsys_insight"]
)
def test_a_second_spelling_is_found(name, tmp_path):
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "land.py").write_text(f'"""About {name}."""\nTABLE = "{name}"\n')

    assert names.second_spellings(tmp_path) == [f"etl/land.py:2 spells {name!r} again"]


@pytest.mark.parametrize(
    "query",
    [
        "select 1 from marts.fct_interaction",
        "INSERT INTO raw.item values (1)",
        "create table if not exists serving.lists ()",
    ],
)
def test_a_table_that_nobody_knows_is_found(query, tmp_path):
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "land.py").write_text(f'QUERY = f"{query} {{1}}"\n')

    assert len(names.unknown_tables(tmp_path)) == 1


def test_known_tables_in_sql_are_fine(tmp_path):
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "land.py").write_text('QUERY = "select 1 from marts.fct_interactions join raw.items"\n')

    assert names.unknown_tables(tmp_path) == []


def test_dbt_builds_exactly_the_marts():
    assert names.dbt_marts(HOME) == {table for table in MARTS if table.startswith(f"{artifacts.MARTS}.")}


def test_dbt_reads_tables_that_the_schema_makes():
    sources = names.dbt_sources(HOME)

    assert {artifacts.RAW_INTERACTIONS, artifacts.RAW_IMPRESSIONS, artifacts.RAW_ITEMS} <= sources
    assert sources <= names.schema_tables(HOME)


def test_the_schema_makes_every_table_that_dbt_does_not():
    assert names.schema_tables(HOME) == (names.TABLES - MARTS) | names.PARTITIONS


@pytest.mark.parametrize(
    ("mart", "features"),
    [
        (artifacts.FEAT_USER_ACTIVITY, artifacts.USER_FEATURES),
        (artifacts.FEAT_ITEM_POPULARITY, artifacts.ITEM_FEATURES),
        (artifacts.FEAT_USER_WINDOWS, artifacts.USER_WINDOW_FEATURES),
        (artifacts.FEAT_ITEM_WINDOWS, artifacts.ITEM_WINDOW_FEATURES),
        (artifacts.FEAT_USER_CATEGORY_WINDOWS, artifacts.USER_CATEGORY_FEATURES),
        (artifacts.FEAT_ITEM_PRICES, artifacts.ITEM_PRICE_FEATURES),
    ],
)
def test_feature_marts_declare_the_features(mart, features):
    declared = names.dbt_columns(HOME, mart.split(".")[1])

    assert set(features) <= set(declared)
    assert columns.EVENT_TIMESTAMP in declared


def test_an_erasure_knows_every_table_with_rows_of_a_user():
    """Those of the schema, and those that dbt makes. `raw.removed_interactions` keeps its rows, without the user."""
    schema = (HOME / "recsys" / "schema.sql").read_text()
    made = re.findall(r"create table if not exists ([a-z_.]+) \((.*?)^\)", schema, re.DOTALL | re.MULTILINE)
    of_users = {table for table, declared in made if re.search(rf"^ +{columns.USER_ID} ", declared, re.MULTILINE)}
    of_users |= {mart for mart in MARTS if columns.USER_ID in names.dbt_columns(HOME, mart.split(".")[1])}
    assert len(of_users) > 12
    assert of_users - {artifacts.REMOVED_INTERACTIONS} == set(ERASED_TABLES)


@pytest.mark.parametrize("mart", sorted(MARTS & set(DASHBOARD_COLUMNS)))
def test_dashboard_reads_columns_that_dbt_declares(mart):
    declared = names.dbt_columns(HOME, mart.split(".")[1])

    assert set(DASHBOARD_COLUMNS[mart]) <= set(declared)


def test_feast_offers_what_the_artifacts_name():
    """Feast's own objects, as its definitions file makes them, in a process of their own."""
    script = """
import json, runpy
from feast import FeatureService, FeatureView, PushSource
objects = runpy.run_path("feature_repo/features.py").values()
views = {o.name: sorted(f.name for f in o.features) for o in objects if isinstance(o, FeatureView)}
services = {
    o.name: sorted(f.name for p in o.feature_view_projections for f in p.features)
    for o in objects if isinstance(o, FeatureService)
}
push = [o.name for o in objects if isinstance(o, PushSource)]
print(json.dumps({"views": views, "services": services, "push": push}))
"""
    # -O: else Feast checks its own types while it is imported, for seconds
    done = subprocess.run([sys.executable, "-O", "-c", script], cwd=HOME, capture_output=True, text=True, check=True)
    offered = json.loads(done.stdout.splitlines()[-1])

    assert offered["views"] == {
        artifacts.FEATURE_VIEW_USER_ACTIVITY: sorted(artifacts.USER_FEATURES),
        artifacts.FEATURE_VIEW_ITEM_POPULARITY: sorted(artifacts.ITEM_FEATURES),
        artifacts.FEATURE_VIEW_USER_WINDOWS: sorted(artifacts.USER_WINDOW_FEATURES),
        artifacts.FEATURE_VIEW_ITEM_WINDOWS: sorted(artifacts.ITEM_WINDOW_FEATURES),
        artifacts.FEATURE_VIEW_USER_CATEGORY_WINDOWS: sorted(artifacts.USER_CATEGORY_FEATURES),
        artifacts.FEATURE_VIEW_ITEM_PRICES: sorted(artifacts.ITEM_PRICE_FEATURES),
        artifacts.FEATURE_VIEW_ITEM_TEXTS: sorted(artifacts.ITEM_TEXT_FEATURES),
    }
    assert offered["services"] == {
        artifacts.FEATURE_SERVICE_RETRIEVAL: sorted(artifacts.USER_FEATURES),
        artifacts.FEATURE_SERVICE_RANKING: sorted((*artifacts.USER_FEATURES, *artifacts.ITEM_FEATURES)),
        artifacts.FEATURE_SERVICE_RANKING_WINDOWS: sorted(
            (
                *artifacts.USER_FEATURES,
                *artifacts.USER_WINDOW_FEATURES,
                *artifacts.ITEM_FEATURES,
                *artifacts.ITEM_WINDOW_FEATURES,
            )
        ),
        artifacts.FEATURE_SERVICE_ANALYSIS: sorted(
            (
                *artifacts.USER_FEATURES,
                *artifacts.USER_WINDOW_FEATURES,
                *artifacts.USER_CATEGORY_FEATURES,
                *artifacts.ITEM_FEATURES,
                *artifacts.ITEM_WINDOW_FEATURES,
                *artifacts.ITEM_PRICE_FEATURES,
                *artifacts.ITEM_TEXT_FEATURES,
            )
        ),
    }
    assert offered["push"] == [artifacts.PUSH_SOURCE_USER_ACTIVITY]


def test_every_model_name_has_one_file():
    files = {path.stem for path in (HOME / "training").rglob("*.py")}

    assert set(artifacts.MODEL_ZOO) <= files
