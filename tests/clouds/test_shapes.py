"""The comparison of the clouds' shapes: every cell says what it is, and the table holds what the report says."""

import json

import pytest

from infra import shapes
from infra.autoscaling import ScalingPolicy
from infra.prices import PRICES, Price
from infra.shapes import COLUMNS, KINDS, Measured
from recsys import artifacts
from recsys.errors import MissingArtifact
from recsys.warehouse import connect

ONE = Measured(p50_ms=2.0, p99_ms=9.0, requests_per_s=300.0, batch_users_per_s=200.0, startup_s=1.5, resident_mib=240)
FOUND = {(1, 1): ONE, (2, 4): ONE._replace(requests_per_s=400.0)}
LISTED, GUESSED = Price(0.36, 2, 4, "LIST"), Price(0.36, 2, 4, "ESTIMATE", "of this test")


def test_a_shape_that_was_measured_says_so_and_costs_what_it_should():
    (row,) = shapes.shapes({"aws this": LISTED}, FOUND)
    assert (row.target, row.shape, row.requests_per_s) == ("aws", "this", 400.0)
    carried = 400 * ScalingPolicy().utilisation
    assert row.usd_per_1000_requests == pytest.approx(0.36 / 3600 / carried * 1000, rel=1e-3)
    assert row.usd_per_million_batch_users == pytest.approx(0.36 / 3600 / 200 * 1e6, rel=1e-3)
    assert (row.kinds["p50_ms"], row.kinds["usd_per_hour"]) == ("measured", "list price")
    assert row.kinds["usd_per_1000_requests"] == "measured and list price"


def test_what_rests_on_an_estimate_is_one():
    (row,) = shapes.shapes({"gcp this": GUESSED}, FOUND)
    assert (row.kinds["p50_ms"], row.kinds["usd_per_hour"]) == ("measured", "estimate")
    assert row.kinds["usd_per_1000_requests"] == "estimate"


def test_a_shape_too_large_for_this_machine_is_estimated_from_the_nearest():
    (row,) = shapes.shapes({"aws large": LISTED._replace(cores=4, memory_gib=16)}, FOUND)
    assert (row.requests_per_s, row.p50_ms) == (800.0, 2.0)
    assert row.kinds["requests_per_s"] == row.kinds["usd_per_1000_requests"] == "estimate"
    assert row.kinds["usd_per_hour"] == "list price"


def test_each_cell_of_each_priced_machine_has_a_known_kind():
    rows = shapes.shapes(PRICES, FOUND)
    assert {row.target for row in rows} == {"aws", "gcp", "azure", "aci", "k8s"}
    assert {row.target for row in rows} == set(shapes.LIMITS)
    assert len(rows) == sum(bool(price.cores) for price in PRICES.values())
    for row in rows:
        without = {"scale_out_s"} if row.scale_out_s is None else set()
        assert set(row.kinds) == set(COLUMNS) - {"target", "shape"} - without
        assert set(row.kinds.values()) <= set(KINDS)
        assert row.configuration_lines > 2


def test_only_limits_that_this_machine_has_are_measured():
    assert shapes.limits(1, 2.0) == [(1, 1)]
    assert (4, 16) not in shapes.limits(2, 64.0)
    assert (4, 16) in shapes.limits(4, 16.0)


def test_without_a_report_it_says_how_to_make_one(tmp_path, world):
    with pytest.raises(MissingArtifact, match="make cloud-report"):
        shapes.write(world(), tmp_path / "clouds.json")


@pytest.mark.services
def test_the_table_holds_the_last_report_and_nothing_else(world, tmp_path):
    settings, report = world("postgres"), tmp_path / "clouds.json"
    for prices in (PRICES, {"aws this": LISTED}):
        rows = shapes.shapes(prices, FOUND)
        told = {"date": "2026-11-29", "prices_of": "2025-01-31", "shapes": [row.model_dump() for row in rows]}
        report.write_text(json.dumps(told))
        assert shapes.write(settings, report)["rows"] == len(rows)
        with connect(settings) as connection:
            found = connection.execute(
                f"select target, shape, p99_ms, kinds ->> 'p99_ms', measured_on::text from {artifacts.CLOUD_SHAPES}"
            ).fetchall()
        wanted = [(row.target, row.shape, row.p99_ms, row.kinds["p99_ms"], "2026-11-29") for row in rows]
        assert sorted(found) == sorted(wanted)
