"""The raw door on the tiny warehouse: green, a warning, and red with one sentence."""

import subprocess
import sys

import pytest

from expectations.__main__ import judge_door
from recsys.errors import CheckFailed, MissingArtifact
from recsys.interval import Interval
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from tests.worlds.warehouse import AS_OF, INTERVAL, insert, instant, land

pytestmark = pytest.mark.usefixtures("great_expectations")


@pytest.fixture(scope="module")
def landed(world) -> Settings:
    settings = world("postgres")
    with pytest.raises(MissingArtifact, match=r"etl\.load"):
        judge_door(settings, "raw", INTERVAL)
    with connect(settings) as connection:
        land(connection)
    return settings


def add_row(settings: Settings, event_id: str, item_id: str, rating: float, domain: str = "movies") -> None:
    row = (event_id, "u:dan", item_id, rating, instant(2, 1), domain, "rate", "{}", "films", "history")
    with connect(settings) as connection:
        insert(connection, "raw.interactions", [row])
        connection.execute("update monitoring.receipts set fingerprint = %s where task = 'etl.load'", (event_id,))


def remove_row(settings: Settings, event_id: str) -> None:
    with connect(settings) as connection:
        connection.execute("delete from raw.interactions where event_id = %s", (event_id,))
        connection.execute("update monitoring.receipts set fingerprint = 'mended' where task = 'etl.load'")


def verdicts(settings: Settings) -> dict[tuple[str, str], tuple[str, str]]:
    with connect(settings) as connection:
        found = connection.execute("select check_name, subject, verdict, observed from monitoring.outcomes").fetchall()
    return {(check, subject): (verdict, observed) for check, subject, verdict, observed in found}


def test_a_sound_partition_passes_and_is_not_judged_twice(landed):
    judged = judge_door(landed, "raw", INTERVAL)
    assert (judged["failed"], judged["warned"], judged["unchanged"]) == (0, 0, False)
    assert len(verdicts(landed)) == judged["checks"] > 15
    assert {verdict for verdict, _ in verdicts(landed).values()} == {"pass"}
    assert (landed.var_dir / "expectations" / "raw" / "index.html").is_file()
    again = judge_door(landed, "raw", INTERVAL)
    assert again == {"checks": judged["checks"], "failed": 0, "warned": 0, "unchanged": True}


def test_rows_outside_the_partition_are_not_judged(landed):
    """The view of an undescribed item came from the log, the rating at as_of in a later partition."""
    observed = verdicts(landed)["raw.some_rows", "books,movies:interactions"][1]
    assert observed == "4"  # e1, e2, e3, e4


def test_a_warning_lets_the_data_through(landed):
    add_row(landed, "unknown item", "m:404", 3.0)
    judged = judge_door(landed, "raw", INTERVAL)
    assert (judged["failed"], judged["warned"]) == (0, 1)
    subject = "books,movies:references.is_item_known"
    assert verdicts(landed)["raw.all_items_known", subject] == ("warn", "1 of 5 rows (20.0000%) unexpected")
    assert verdicts(landed)["raw.half_of_the_items_known", subject][0] == "pass"
    remove_row(landed, "unknown item")


def test_a_broken_row_ends_red_with_one_sentence(landed):
    add_row(landed, "too good", "m:1", 9.0)
    command = ["-m", "expectations", "raw", "--as-of", AS_OF.isoformat(), "--domains", "movies,books"]
    ended = subprocess.run([sys.executable, *command], cwd=HOME, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    sentence = ended.stderr.strip().splitlines()[-1]
    assert "raw.rating_in_scale on books,movies:interactions.rating" in sentence
    assert "1 of 5 rows (20.0000%) unexpected" in sentence
    assert ended.stdout == ""
    assert verdicts(landed)["raw.rating_in_scale", "books,movies:interactions.rating"][0] == "fail"

    with pytest.raises(CheckFailed):  # a failure leaves no receipt: it is judged, and fails, again
        judge_door(landed, "raw", INTERVAL)
    remove_row(landed, "too good")
    assert judge_door(landed, "raw", INTERVAL)["failed"] == 0
    assert verdicts(landed)["raw.rating_in_scale", "books,movies:interactions.rating"][0] == "pass"


def test_an_unknown_domain_is_nobodys_and_fails(landed):
    add_row(landed, "from nowhere", "m:1", 3.0, domain="opera")
    with pytest.raises(CheckFailed, match=r"raw\.domain_is_known"):
        judge_door(landed, "raw", INTERVAL)
    remove_row(landed, "from nowhere")


def test_an_empty_history_fails_and_an_empty_day_warns(landed):
    with connect(landed) as connection:
        connection.execute("insert into monitoring.receipts values ('etl.load', 'x', 'y', '{}')")
    with pytest.raises(CheckFailed, match=r"raw\.some_rows on social:interactions: 0"):
        judge_door(landed, "raw", Interval(("social",), AS_OF))
    quiet_day = judge_door(landed, "raw", Interval(("social",), AS_OF, since=instant(2, 29).date()))
    assert (quiet_day["failed"], quiet_day["warned"]) == (0, 1)
