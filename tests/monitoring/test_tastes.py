"""Since when the mix of categories is another one: by hand, under chance, and in the made-up world's planted day."""

import numpy as np
import pandas as pd
import pytest

from monitoring.check_drift import check_drift
from monitoring.tastes import EDGE_DAYS, find_break
from recsys import receipts
from recsys.columns import DOMAINS
from recsys.warehouse import connect
from tests.worlds import made_up


def test_a_break_by_hand():
    """Sixty of each hundred become forty on day 20 of 40; the gain is that of two binomials."""
    counts = np.array([[60, 40]] * 20 + [[40, 60]] * 20)
    found = find_break(counts, seed=1)
    assert (found.day, found.category, found.is_drift) == (20, 0, True)
    assert (found.before, found.after) == pytest.approx((0.6, 0.4), abs=1e-3)
    apart = 2 * 2_000 * (0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    assert found.gain == pytest.approx(apart - 4_000 * np.log(0.5))
    assert found.psi == pytest.approx(0.2 * np.log(1.5) * 2, abs=1e-3)


def test_one_mix_is_rarely_called_two():
    rng = np.random.default_rng(3)
    called = sum(find_break(rng.multinomial(300, [0.5, 0.3, 0.2], 90), seed).is_drift for seed in range(40))
    assert called == 0


def test_bursts_of_single_days_are_no_break():
    """Each day has a favourite of its own, as bursty days have: the mixes of two halves differ, and that is chance."""
    rng = np.random.default_rng(5)
    counts = np.stack([rng.multinomial(200, rng.dirichlet(np.ones(4) * 3)) for _ in range(80)])
    assert not find_break(counts, 1).is_drift


@pytest.mark.parametrize("days", [0, 1, 2 * EDGE_DAYS])
def test_too_few_days_are_not_judged(days):
    assert find_break(np.full((days, 3), 1000), 1) is None


def test_too_few_events_are_not_judged():
    assert find_break(np.full((30, 2), 3), 1) is None


@pytest.mark.services
def test_the_planted_drift_date_is_recovered_by_the_job(world, tmp_path):
    """In every domain to within two days, and nothing is found in the time before it."""
    settings = world("postgres")
    interactions, items, _, truths = made_up.read(made_up.write(tmp_path))
    planted = pd.Timestamp(truths["planted"]["drift_date"]).date()
    with connect(settings) as connection:
        connection.execute("create schema if not exists marts")
        connection.execute(TABLES)
        copy(
            connection,
            "marts.dim_items (item_id, domain, categories)",
            ([row.item_id, row.domain, [row.category]] for row in items.itertuples()),
        )
        copy(connection, "marts.fct_interactions (event_id, user_id, item_id, domain, event_type, occurred_at)",
             ((str(n), row.user_id, row.item_id, row.domain, row.event_type, row.at)
              for n, row in enumerate(interactions.itertuples())))  # fmt: skip
        receipts.record(connection, "dbt.build", made_up.INTERVAL.key, "by hand", {})
    said = check_drift(settings, made_up.INTERVAL)["mix_changed"]
    assert set(said) == {f"first categories in {domain}" for domain in DOMAINS}
    late = {subject: (pd.Timestamp(since).date() - planted).days for subject, since in said.items()}
    assert all(abs(days) <= 2 for days in late.values()), late
    with connect(settings) as connection:
        told = connection.execute(
            "select verdict, detail ->> 'category' from monitoring.outcomes where check_name = 'drift_date'"
        ).fetchall()
        connection.execute("delete from marts.fct_interactions where occurred_at >= %s", [planted])
        receipts.record(connection, "dbt.build", made_up.INTERVAL.key, "the time before", {})
    drifting = truths["planted"]["drifting_category"]
    assert set(told) == {("warn", f"{domain} category {drifting}") for domain in DOMAINS}
    assert check_drift(settings, made_up.INTERVAL)["mix_changed"] == {}


TABLES = """
    create table marts.fct_interactions (
        event_id text, user_id text, item_id text, domain text, event_type text, rating float8, occurred_at timestamptz
    );
    create table marts.dim_users (user_id text, domains text[]);
    create table marts.dim_items (item_id text, domain text, categories text[]);
    create table marts.feat_user_activity (
        user_id text, event_timestamp timestamptz, user_interactions_total bigint, user_interactions_30d bigint,
        user_distinct_items bigint, user_mean_rating float8
    );
    create table marts.feat_item_popularity (
        item_id text, event_timestamp timestamptz, item_interactions_total bigint, item_interactions_90d bigint,
        item_mean_rating float8
    )
"""


def copy(connection, table, rows) -> None:
    with connection.cursor().copy(f"copy {table} from stdin") as writing:
        for row in rows:
            writing.write_row(row)
