"""Every broken input of tests/worlds/broken_inputs.py: no crash, refused with its reason, and nothing else lost.

Each domain is landed once and loaded into PostgreSQL, which is the second judge of what a text may hold.
"""

from datetime import date, datetime

import pytest

from etl.__main__ import land, load
from etl.discovery import discover
from recsys.errors import CheckFailed, UnusableInput
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.worlds import broken_inputs as world
from tests.worlds.etl_files import AS_OF, NOW
from tests.worlds.unusable_files import BESIDE, UNUSABLE

# A line whose fault is so large, or so far from text, that its quarantined record is not the line itself.
SHORTENED = {"ten megabytes in a field", "deep JSON", "forty thousand columns"}


@pytest.fixture(scope="module")
def warehouse(world) -> Settings:
    return world("postgres")


@pytest.fixture(scope="module", params=world.SOURCES)
def landed(request, warehouse, shared_session, tmp_path_factory) -> tuple[str, Settings, dict]:
    """Domain, settings and the counts of its landing."""
    root = tmp_path_factory.mktemp(request.param)
    world.write(request.param, root)
    settings = warehouse.model_copy(update={"data_dir": root, "lake_url": str(root / "lake")})
    interval = Interval((request.param,), date.fromisoformat(AS_OF))
    detail = land(settings, interval, datetime.fromisoformat(NOW))
    with pytest.raises(CheckFailed, match="refused_share"):  # more than a fifth is broken: nothing is published …
        load(settings, interval)
    from etl import load as loading
    from etl.lake import lake_folder

    with loading.transaction(settings) as cursor:  # … and all of it could be
        loading.replace_partition(cursor, lake_folder(settings), interval, detail["sources"])
    return request.param, settings, detail


def test_the_corpus_is_large():
    faults = [*world.faults(), *UNUSABLE]
    assert len(set(faults)) == len(faults) >= 100
    assert len(world.SOURCES) == 4


def test_every_line_lands_or_is_refused_with_its_reason(landed):
    domain, _, detail = landed
    counts = {(count["source"], count["table"]): count for count in detail["sources"]}
    names = {"products": "amazon", "social": "reddit"}
    wanted = world.expected(domain)
    assert wanted
    for (folder, table), reasons in wanted.items():
        count = counts[names.get(folder, folder), table]
        lands = reasons.pop(world.LANDS)
        assert count["quarantine"] == dict(sorted(reasons.items())), (folder, table)
        assert count["rows_landed"] == lands
        assert count["rows_read"] == lands + reasons.total()
        assert count["rows_outside_interval"] == 0


def test_each_refused_line_is_kept_beside_its_own_reason(landed):
    domain, settings, _ = landed
    with connect(settings) as connection:
        rows = connection.execute("select table_name, record, reason from raw.quarantine").fetchall()
    kept: dict[tuple[str, str], set[str]] = {}
    for table, record, reason in rows:
        kept.setdefault((table, record), set()).add(reason)
    lines = [
        (file, line)
        for file in world.SOURCES[domain]
        for line in file.lines
        if line.reason != world.LANDS and line.fault not in SHORTENED and not line.reason.startswith("duplicate_")
        if line.reason != "undecodable_text"
    ]
    assert lines
    for file, line in lines:
        record = line.content.decode().replace("\0", "\ufffd")
        assert line.reason in kept[file.table, record], line.fault


def test_what_lands_is_clean_in_postgres(landed):
    domain, settings, _ = landed
    with connect(settings) as connection:
        titles = [row[0] for row in connection.execute("select title from raw.items where domain = %s", (domain,))]
        query = "select count(*), bool_and(context is json object) from raw.interactions where domain = %s"
        events, contexts_are_json = connection.execute(query, (domain,)).fetchone()
        query = "select count(*) from raw.items where price::text in ('NaN', 'Infinity', '-Infinity')"
        assert connection.execute(query).fetchone() == (0,)
    assert titles
    assert events
    assert contexts_are_json
    strange = {
        "movies": {"<script>alert(1)</script>", "=cmd|' /C calc'!A0", "Robert'); drop table raw.items; --", "Heat"},
        "products": {"<b onclick=x>&amp;</b>", 'It\'s "old"', "It's", "a?b"},
        "books": {"+1-2", "Odyssey", "The Thing"},
        "social": {"r/de"},
    }
    assert strange[domain] <= set(titles)


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_stops_with_one_sentence_that_names_it(case, tmp_path):
    domain, name, content, sentence = UNUSABLE[case]
    for beside, good in {**BESIDE.get(domain, {}), name: content}.items():
        (tmp_path / beside).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / beside).write_bytes(good)
    with pytest.raises(UnusableInput, match=sentence) as error:
        discover(Settings(_env_file=None, data_dir=tmp_path), [domain])
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
