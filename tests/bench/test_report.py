"""The report says what the results say: verdicts are theirs, numbers are theirs, charts and pages come out of them."""

import json

import jinja2
import pytest

from bench import models
from bench.report import figures, index, results, warehouse
from bench.report.__main__ import TEMPLATES, gather, learned, render
from recsys import artifacts
from recsys.settings import HOME
from recsys.warehouse import connect
from tests.worlds import insight_marts

MODELS = [
    ("split: good", "hit_rate@10 0.70, ≤ 30 CPU s: met", "hit_rate@10 0.80; 10.5 CPU s (fit 4.0), 0.75 GiB"),
    ("split: slow", "hit_rate@10 0.70, ≤ 30 CPU s: MISSED", "hit_rate@10 0.75; 90.0 CPU s (fit 80), 1.5 GiB"),
    ("split: <b>odd</b>", "none", "crashed"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = [dict(measure=m, target=t, measured=v, command="python -m bench.models") for m, t, v in MODELS]
    document = {"date": "2026-11-20", "machine": {"cores": 2}, "rows": rows}
    (tmp_path / "models.json").write_text(json.dumps(document))
    (tmp_path / "models.md").write_text("# Models\n\n| measure |\n| --- |\n| split |\n\nSome notes.\n")
    return tmp_path


def test_a_row_has_the_verdict_that_it_states(folder):
    (models,) = results.read(folder)

    assert [row.verdict for row in models.rows] == ["met", "missed", "told"]
    assert (models.title, models.machine, models.notes) == ("Models", "cores 2", "Some notes.")
    assert results.verdict({"target": "", "measured": "0.229% missed, 79.2 replica-hours"}) == "told"


@pytest.mark.parametrize(
    ("target", "measured", "verdict"),
    [
        ("≤ 1 ms", "p50 0.94 ms, p99 5.26 ms", "met"),
        ("p50 ≤ 3 ms, p99 ≤ 15 ms", "p50 2.9 ms, p95 12 ms, p99 15.1 ms", "missed"),
        ("p95 ≤ 1 s, beyond 300 ms", "p50 46 ms, p95 1,300 ms", "missed"),
        ("p95 ≤ 1 s, beyond 300 ms", "p50 46 ms, p95 900 ms", "met"),
        ("≥ 3 000, beyond 8 000", "2,999.5 events", "missed"),
        ("≥ 0.7 ×", "49,882 / 187,785 = 0.71 × (by processor seconds 0.24 ×)", "met"),
        ("COPY ≥ 5 ×", "61,172 (61,116 to 61,228); COPY 3.47 ×", "missed"),
        ("≥ .97", "0.9747", "met"),
        ("≤ 5 % of the whole", "6.4%: land 26.3 s", "missed"),
        ("0 failures", "0 failures of 2731", "met"),
        ("0 failures", "1 failures of 2731", "missed"),
        ("0", "0.5 s", "missed"),
        ("≤ 700 MB", "127 MiB and 71 MiB of children", "told"),
        ("p99 ≤ 100 ms", "6.0, 68.0, 117 ms", "told"),
        ("≥ 99%", "60 of 60", "told"),
        ("calibration error ≤ .01; no task worse than alone", "calibration error 0.0062", "told"),
        ("≤ 30 CPU s: MISSED", "29 CPU s", "missed"),
        ("none", "≥ 5", "told"),
        ("", "5", "told"),
    ],
)
def test_a_plain_bound_is_judged_and_nothing_else(target, measured, verdict):
    assert results.verdict({"target": target, "measured": measured}) == verdict


def test_the_index_counts_verdicts_and_names_what_was_missed(folder):
    (folder / "clouds.md").write_text("# Clouds\n\nOf another shape.\n")
    told = index.text(folder)

    assert "| [Models](models.md) | 2026-11-20 | 1 | 1 |  | 1 |" in told
    assert "| [Clouds](clouds.md) |" in told
    assert told.rstrip().splitlines()[-1].startswith("- [Models](models.md): split: slow. Target hit_rate@10 0.70")


def test_models_are_read_as_numbers_beside_the_published(folder):
    good, slow = results.trained(results.read(folder)[0])

    assert (good.model, good.metric, good.value, good.published) == ("good", "hit_rate@10", 0.8, 0.7)
    assert (slow.cpu_seconds, slow.fit_seconds, slow.memory_gib, slow.verdict) == (90, 80, 1.5, "missed")


def test_a_model_without_a_published_figure_stands_in_its_splits_panel_and_not_beside_papers(folder):
    path = folder / "models.json"
    page = json.loads(path.read_text())
    (row,) = [row for row in page["rows"] if row["measure"].endswith(": slow")]
    page["rows"] += [row | {"measure": "split: own", "target": "≤ 60 CPU s: met"}, row | {"measure": "other: own"}]
    page["rows"][-1] |= {"target": "none", "measured": row["measured"].replace("hit_rate@10", "recall@20")}
    path.write_text(json.dumps(page))
    good, slow, same, other = rows = results.trained(results.read(folder)[0])

    assert (same.metric, same.value, same.published) == (slow.metric, slow.value, None)
    assert (other.split, other.metric, other.published) == ("other", "recall@20", None)
    drawn = figures.beside_published(rows)
    assert good.model in drawn
    assert "own" not in drawn


def test_no_result_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        results.read(tmp_path)


def test_pages_say_everything_once_and_no_markup_comes_alive(folder):
    facts = gather(
        results.read(folder), {"Kinds of customers": [{"segment": "<i>s1</i>", "value": None}]}, "2026-11-29"
    )
    pages = {name: render(f"{name}.html.j2", facts) for name in ("report", "slides", "models")}

    assert set(facts["figures"]) == {"verdicts", "front", "published", "costs"}
    for page in pages.values():
        assert "<b>odd</b>" not in page
        assert "<script" not in page
        assert "<svg" in page
    assert "&lt;i&gt;s1&lt;/i&gt;" in pages["report"]
    assert "1 measures meet their target, 1 miss it; 1 are not judged" in " ".join(pages["report"].split())
    assert pages["slides"].count("<section>") == 1 + 1 + 3 + 1 + 1 + 1 + 1


def test_our_own_results_become_pages():
    told = results.read(HOME / "docs" / "results")
    facts = gather(told, {}, "2026-11-29")

    assert len(told) > 10
    assert len(results.trained(next(one for one in told if one.name == "models"))) >= 7
    assert len(results.latencies(next(one for one in told if one.name == "serving"))) > 3
    assert all(one.title in render("report.html.j2", facts) for one in told[:3])
    assert len(learned((HOME / "docs" / "decisions" / "README.md").read_text())) > 20


def test_the_charts_compare_within_a_split_only(folder):
    (models,) = results.read(folder)
    drawn = figures.front(results.trained(models))

    assert drawn.startswith("<svg")
    assert drawn.count(">good<") == drawn.count(">slow<") == 1


ANSWERED = "an answer p50 1.25 ms, p99 3.50 ms, 12.5 MiB, pytorch"


def test_how_fast_and_how_large_a_model_is_comes_from_its_row(folder):
    path = folder / "models.json"
    path.write_text(path.read_text().replace("0.75 GiB", f"0.75 GiB; {ANSWERED}"))
    told = results.read(folder)
    good, slow = results.trained(told[0])

    assert (good.framework, good.answer_p50_ms, good.answer_p99_ms, good.size_mib) == ("pytorch", 1.25, 3.5, 12.5)
    assert (slow.framework, slow.answer_p50_ms) == ("", None)
    page = render("models.html.j2", gather(told, {}, "2026-11-30"))
    assert ">pytorch<" in page
    assert "How fast an answer is" in page


def test_the_trade_off_of_variety_is_a_line_a_method(folder):
    rows = [
        dict(measure=f"{method}, trade-off {at}", target="none", command="python -m bench.diversity FOLDER",
             measured=f"ndcg@10 0.{at} (+0.0000 [+0.0000, +0.0000]), diversity 0.{10 - at}, 0.10 CPU-ms a list")
        for method in ("mmr", "dpp") for at in (1, 5)
    ]  # fmt: skip
    other = dict(measure="quality by gender", target="none", measured="ndcg@10 F: 0.2", command="c")
    document = {"date": "2026-11-30", "machine": {}, "rows": [*rows, other]}
    (folder / "diversity.json").write_text(json.dumps(document))
    (folder / "diversity.md").write_text("# Variety\n\n| measure |\n| --- |\n| mmr |\n")
    told = results.read(folder)

    assert results.curves(told[0])[:2] == [("mmr", 1, 0.1, 0.9), ("mmr", 5, 0.5, 0.5)]
    assert len(results.curves(told[0])) == 4
    assert "What variety costs" in render("models.html.j2", gather(told, {}, "2026-11-30"))


def test_a_page_that_lacks_a_fact_is_not_made():
    with pytest.raises(jinja2.UndefinedError):
        render("report.html.j2", {})
    assert {path.name for path in TEMPLATES.glob("*.html.j2")} >= {"report.html.j2", "slides.html.j2", "models.html.j2"}


def test_the_warehouse_is_asked_and_what_is_missing_is_nothing(world):
    settings = world("postgres")
    with connect(settings) as connection:
        insight_marts.remove(connection)
    assert all(rows == [] for rows in warehouse.read(settings).values())
    with connect(settings) as connection:
        insight_marts.create(connection)
        insight_marts.plant(connection)
    told = warehouse.read(settings)

    assert all(told.values())
    assert told["Promises"][1]["objective"] == "checks do not fail"
    assert {row["domain"] for row in told["Kinds of customers"]} == {"books", "movies"}
    assert artifacts.AGG_HEADLINES in {table for table, _ in warehouse.QUESTIONS.values()}


def test_the_models_table_comes_out_of_its_figures(tmp_path):
    rows = [{"measure": "s: ease", "target": "none", "measured": "recall@20 0.2; 3.0 CPU s", "command": "make it"}]
    document = {"date": "2026-01-02", "machine": {"cores": 2}, "rows": rows}
    models.write_page(tmp_path)
    assert not list(tmp_path.iterdir()), "without figures there is no page"
    (tmp_path / "models.json").write_text(json.dumps(document))
    models.write_page(tmp_path)
    written = (tmp_path / "models.md").read_text()
    assert "Measured on 2026-01-02: cores 2." in written
    assert "| s: ease | none | recall@20 0.2; 3.0 CPU s | `make it` |" in written
