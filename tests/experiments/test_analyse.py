"""The command on the real warehouse: from impressions to outcome rows, conclusions and decisions."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from experiments.analyse import analyse
from recsys.artifacts import EXPERIMENT_SALT
from recsys.errors import RecsysError, UnusableInput
from recsys.interleaving import team_of
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.split import decisions_file, live_split
from recsys.warehouse import connect

pytestmark = pytest.mark.services

INTERVAL = Interval(("movies",), date(2020, 2, 1))
SHOWN_AT = datetime(2020, 1, 10, tzinfo=UTC)
NAME = "which-list"
DECLARED = """
[[experiments]]
name = "which-list"
question = "Which list?"
starts_on = 2020-01-05
control = "popular"
variants = [
    { name = "champion", share = 0.4, policy = "champion" },
    { name = "popular", share = 0.4, policy = "popular" },
    { name = "shuffle", share = 0.2, policy = "shuffle" },
]
guardrails = [{ metric = "conversion" }]
"""
TABLES = """
truncate monitoring.outcomes;
drop schema marts cascade;
create schema marts;
create table marts.fct_impressions (
    request_id text, user_id text, item_id text, rank int, score float8, domain text, variant text, propensity float8,
    shown_at timestamptz, is_clicked boolean, early_clicks bigint
);
create table marts.fct_interactions (
    user_id text, item_id text, domain text, event_type text, occurred_at timestamptz
);
create table marts.dim_items (item_id text, price float8);
insert into marts.dim_items values ('cheap', 1), ('dear', 7)
"""


@pytest.fixture
def settings(world, tmp_path) -> Settings:
    """An experiment of three variants, and nothing shown yet."""
    path = tmp_path / "declared.toml"
    path.write_text(DECLARED)
    settings = world("postgres").model_copy(update={"experiments_file": path, "var_dir": tmp_path})
    with connect(settings) as connection:
        connection.execute(TABLES)
    return settings


def show(
    settings: Settings, variant: str, users: range, clicks: int, domain: str = "movies", at: datetime = SHOWN_AT,
    early: int = 0,
) -> None:  # fmt: skip
    """Show ten items to each user, who clicks the first `clicks`, and one more if their number is odd."""
    rows = [
        (f"{variant}{u}{at}", f"u{u}", f"i{rank}", rank + 1, 1 - rank / 10, domain, variant, 0.02, at,
         rank < clicks + u % 2, early if rank == 0 else 0)
        for u in users
        for rank in range(10)
    ]  # fmt: skip
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(f"insert into marts.fct_impressions values ({', '.join(['%s'] * 11)})", rows)


def do(settings: Settings, event_type: str, *rows: tuple[str, str, datetime]) -> None:
    """Let users do things to items."""
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(f"insert into marts.fct_interactions values (%s, %s, 'movies', '{event_type}', %s)", rows)


def outcomes(settings: Settings) -> dict[tuple[str, str], tuple[str, str]]:
    with connect(settings) as connection:
        rows = connection.execute("select check_name, subject, observed, verdict from monitoring.outcomes")
        return {(check, subject): (observed, verdict) for check, subject, observed, verdict in rows}


def test_more_clicks_are_found_and_told(settings):
    show(settings, "champion", range(400), clicks=3)
    show(settings, "popular", range(400, 800), clicks=1)
    show(settings, "shuffle", range(800, 1000), clicks=1)
    show(settings, "popular", range(1000, 1400), clicks=9, domain="books")
    show(settings, "popular", range(2000, 2400), clicks=9, at=datetime(2020, 2, 1, tzinfo=UTC))  # after the interval
    show(settings, "popular", range(3000, 3400), clicks=9, at=datetime(2020, 1, 4, tzinfo=UTC))  # before it began
    result = analyse(settings, INTERVAL)
    read = result["experiments"][NAME]

    assert read["users"] == {"champion": 400, "popular": 400, "shuffle": 200}
    assert read["lift"]["champion"]["value"] == pytest.approx(0.35 / 0.15 - 1)
    assert read["lift"]["champion"]["low"] > 0
    assert read["conclusions"]["champion"].startswith(
        "champion is clicked more than popular: 35.00 % ".replace(" %", "%")
    )
    assert read["conclusions"]["shuffle"].startswith("No difference shown")
    assert read["first_rank"]["requests"] == 200
    rows = outcomes(settings)
    assert rows["sample_ratio", NAME] == ("p = 1", "pass")
    assert rows["metric", f"{NAME}/popular:click_through_rate"][0].startswith("0.1500 [")
    assert rows["metric", f"{NAME}/champion:conversion"][0].startswith("1.0000 [0.99")
    assert rows["lift:click_through_rate", f"{NAME}/champion"][1] == "pass"
    assert rows["conclusion", f"{NAME}/champion"] == (read["conclusions"]["champion"], "pass")
    page = Path(result["report"]).read_text()
    assert read["conclusions"]["shuffle"] in page
    assert "Which list?" in page


def test_a_variant_worse_than_the_control_is_a_warning_and_another_control_turns_it_round(settings):
    show(settings, "champion", range(400), clicks=1)
    show(settings, "popular", range(400, 800), clicks=3)
    show(settings, "shuffle", range(800, 1000), clicks=1)
    analyse(settings, INTERVAL)
    assert outcomes(settings)["lift:click_through_rate", f"{NAME}/champion"][1] == "warn"
    analyse(settings, INTERVAL, control="champion")
    assert outcomes(settings)["lift:click_through_rate", f"{NAME}/popular"][1] == "pass"
    with pytest.raises(RecsysError, match="champion, popular, shuffle"):
        analyse(settings, INTERVAL, control="nobody")


def test_a_wrong_split_is_told_and_nothing_else_is_read(settings):
    show(settings, "champion", range(400), clicks=3)
    show(settings, "popular", range(400, 500), clicks=0)
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert read["conclusions"]["champion"].startswith("Do not read")
    assert read["lift"] == {}
    rows = outcomes(settings)
    assert rows["sample_ratio", NAME][1] == "fail"
    assert {check for check, _ in rows} == {"sample_ratio", "crossed_users", "bots", "early_outcomes", "conclusion"}


def test_crossed_users_bots_and_early_outcomes_are_counted_and_left_out(settings):
    show(settings, "champion", range(100), clicks=3, early=1)
    show(settings, "popular", range(90, 190), clicks=1)
    show(settings, "shuffle", range(200, 250), clicks=1)
    do(settings, "click", *[("u0", "cheap", SHOWN_AT + timedelta(milliseconds=6 * n)) for n in range(10_000)])
    do(settings, "purchase", ("u1", "dear", SHOWN_AT - timedelta(days=1)), ("u1", "cheap", SHOWN_AT))
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert (read["crossed_users"], read["bots"], read["early_outcomes"]) == (10, 1, 101)
    assert read["users"] == {"champion": 89, "popular": 90, "shuffle": 50}
    rows = outcomes(settings)
    assert rows["bots", NAME] == ("1", "warn")
    assert rows["metric", f"{NAME}/champion:revenue_per_user"][0].startswith(f"{1 / 89:.4f}")


def test_retention_asks_those_whose_fourteen_days_are_over(settings):
    show(settings, "champion", range(100), clicks=1)
    show(settings, "popular", range(100, 200), clicks=1)
    show(settings, "shuffle", range(200, 250), clicks=1)
    show(settings, "champion", range(50), clicks=1, at=SHOWN_AT + timedelta(days=8))
    do(settings, "view", *[(f"u{u}", "cheap", SHOWN_AT + timedelta(days=13)) for u in range(100, 125)])
    do(settings, "view", *[(f"u{u}", "cheap", SHOWN_AT + timedelta(days=14)) for u in range(125, 150)])
    show(settings, "popular", range(300, 320), clicks=1, at=SHOWN_AT + timedelta(days=9))
    analyse(settings, INTERVAL)
    rows = outcomes(settings)
    assert rows["metric", f"{NAME}/champion:retention"][0].startswith("0.5000")
    assert rows["metric", f"{NAME}/popular:retention"][0].startswith("0.2500")


def test_harm_stops_a_variant_for_its_users_and_for_later_readings(settings):
    show(settings, "champion", range(400), clicks=0)
    show(settings, "popular", range(400, 800), clicks=3)
    show(settings, "shuffle", range(800, 1000), clicks=3)
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert read["stopped"] == ["champion"]
    assert "Stopped: champion harms conversion" in read["conclusions"]["champion"]
    assert outcomes(settings)["guardrail:conversion", f"{NAME}/champion"][1] == "fail"
    split = live_split(settings)
    assert {split.of(f"u{n}", INTERVAL.as_of).variant for n in range(300)} == {"popular", "shuffle"}
    assert split.of("u1", INTERVAL.as_of).propensity in (pytest.approx(0.8), pytest.approx(0.2))

    show(settings, "popular", range(400), clicks=9, at=datetime(2020, 2, 2, tzinfo=UTC))  # they get the control now
    show(settings, "popular", range(5000, 5400), clicks=3, at=datetime(2020, 2, 2, tzinfo=UTC))  # so do newcomers
    later = analyse(settings, Interval(("movies",), date(2020, 2, 10)))["experiments"][NAME]
    assert later["crossed_users"] == 0
    assert later["users"] == {"champion": 400, "popular": 800, "shuffle": 200}
    assert later["sample_ratio_p"] == 1  # judged up to the stop
    assert later["conclusions"]["champion"].startswith("champion was stopped on 2020-02-01: champion harms conversion")
    assert list(later["lift"]) == ["shuffle"]


def test_thompson_shares_are_decided_and_no_interval_is_read(settings):
    declared = settings.experiments_file.read_text()
    settings.experiments_file.write_text(declared.replace("guardrails", 'allocation = "thompson"\nguardrails'))
    show(settings, "champion", range(400), clicks=1)
    show(settings, "popular", range(400, 500), clicks=0)
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert read["conclusions"]["champion"].startswith("Its shares follow its outcomes")
    shares = json.loads(decisions_file(settings).read_text())["experiments"][NAME]["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["champion"] > 0.5 > shares["popular"]


def test_clicks_in_an_interleaved_list_go_to_who_put_the_item_there(settings):
    declared = settings.experiments_file.read_text()
    mixed = '{ name = "mixed", share = 0.2, policy = "interleaved" }'
    settings.experiments_file.write_text(
        declared.replace('{ name = "shuffle", share = 0.2, policy = "shuffle" }', mixed)
    )
    show(settings, "champion", range(40), clicks=1)
    show(settings, "popular", range(40, 80), clicks=1)
    show(settings, "mixed", range(80, 100), clicks=0)
    with connect(settings) as connection:
        asked = connection.execute(
            "update marts.fct_impressions set is_clicked = false where variant = 'mixed' returning request_id, rank"
        ).fetchall()
        chosen = [(request, rank) for request, rank in asked if team_of(rank, request) == "a" and rank <= 4]
        for request, rank in chosen:
            connection.execute(
                "update marts.fct_impressions set is_clicked = true where request_id = %s and rank = %s",
                (request, rank),
            )
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert read["preferences"]["mixed"].startswith("20 users prefer the champion's list, 0 everybody's list")
    with connect(settings) as connection:
        ((detail,),) = connection.execute(
            "select detail from monitoring.outcomes where check_name = 'preference' and subject = %s",
            (f"{NAME}/mixed",),
        ).fetchall()
    assert (detail["a"], detail["b"], detail["share_of_a"]) == (20, 0, 1)
    report = (settings.var_dir / "reports" / f"experiments-{INTERVAL.as_of}.md").read_text()
    assert "In the lists of mixed, 20 users prefer" in report


def test_another_layer_deals_the_same_users_by_its_own_key(settings):
    declared = (
        settings.experiments_file.read_text()
        + """
[[experiments]]
name = "page-colour"
layer = "page"
question = "Which colour?"
starts_on = 2020-01-05
control = "blue"
buckets = [0, 5000]
variants = [
    { name = "red", share = 0.5, policy = "champion" },
    { name = "blue", share = 0.5, policy = "champion" },
]
"""
    )
    settings.experiments_file.write_text(declared)
    show(settings, "champion", range(400), clicks=1)
    show(settings, "popular", range(400, 800), clicks=1)
    show(settings, "shuffle", range(800, 1000), clicks=1)
    show(settings, "holdout", range(1000, 9000, 20), clicks=1)  # they take part in nothing
    users = analyse(settings, INTERVAL)["experiments"]["page-colour"]["users"]
    assert 400 < sum(users.values()) < 600
    assert min(users.values()) > 200


def test_experiments_of_one_layer_may_give_variants_the_same_names(settings):
    declared = settings.experiments_file.read_text().replace(
        'control = "popular"', 'control = "popular"\nbuckets = [0, 5000]'
    )
    settings.experiments_file.write_text(
        declared + declared.replace("which-list", "again").replace("0, 5000", "5000, 10000")
    )
    show(settings, "champion", range(400), clicks=1)
    show(settings, "popular", range(400, 800), clicks=1)
    show(settings, "shuffle", range(800, 1000), clicks=1)
    read = analyse(settings, INTERVAL)["experiments"]
    each = [sum(read[name]["users"].values()) for name in (NAME, "again")]
    assert sum(each) == 1000
    assert 400 < each[0] < 600


def test_nothing_shown_has_an_answer(settings):
    read = analyse(settings, INTERVAL)["experiments"][NAME]
    assert read["users"] == {"champion": 0, "popular": 0, "shuffle": 0}
    assert read["conclusions"]["champion"].startswith("Nothing was shown yet")
    assert outcomes(settings)["metric", f"{NAME}/champion:conversion"] == ("no data", "pass")
    assert {verdict for _, verdict in outcomes(settings).values()} == {"pass"}
    assert analyse(settings, Interval(("movies",), date(2019, 1, 1)))["experiments"] == {}


def test_shares_of_a_setting_are_one_experiment_over_everybody(settings):
    weights = {"champion": 0.5, "popular": 0.5}
    given = settings.model_copy(update={"variant_weights": weights})
    show(given, "champion", range(100), clicks=3)
    show(given, "popular", range(100, 200), clicks=1)
    assert analyse(given, INTERVAL)["experiments"][EXPERIMENT_SALT]["users"] == {"champion": 100, "popular": 100}
    alone = settings.model_copy(update={"variant_weights": {"champion": 1.0}})
    assert analyse(alone, INTERVAL)["experiments"] == {}


def test_decisions_that_cannot_be_read_are_an_error(settings):
    decisions_file(settings).parent.mkdir(parents=True)
    decisions_file(settings).write_text("{")
    with pytest.raises(UnusableInput, match="delete it"):
        analyse(settings, INTERVAL)
