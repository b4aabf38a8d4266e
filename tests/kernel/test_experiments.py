"""Declarations that cannot be run are refused with a sentence; those that can deal their units as they say."""

import json
from collections import Counter
from datetime import UTC, date, datetime

import pytest

from recsys.artifacts import EXPERIMENT_SALT
from recsys.errors import UnusableInput
from recsys.experiments import Declaration, read_declaration
from recsys.split import Assignment, Decisions, Split, read_decisions, write_decisions

DAY = date(2026, 12, 1)
UNITS = [f"u{number}" for number in range(4000)]
ONE = """
holdout = 0.1
[[experiments]]
name = "first"
question = "Which?"
starts_on = 2026-11-01
control = "a"
buckets = [0, 5000]
variants = [{ name = "a", share = 0.5, policy = "champion" }, { name = "b", share = 0.5, policy = "popular" }]
"""
OTHER = """
[[experiments]]
name = "second"
question = "Which?"
starts_on = 2026-11-01
control = "c"
buckets = [5000, 7500]
variants = [{ name = "c", share = 0.8, policy = "champion" }, { name = "d", share = 0.2, policy = "shuffle" }]
"""


@pytest.fixture
def declared(tmp_path):
    def read(text: str) -> Declaration:
        path = tmp_path / "declared.toml"
        path.write_text(text)
        return read_declaration(path)

    return read


def test_the_repositorys_own_declaration_can_be_run():
    declaration = read_declaration()
    split = Split.by_declaration(declaration, Decisions())
    seen = Counter(split.of(f"u{number}", DAY).variant for number in range(20_000))
    assert set(seen) == {"champion", "popular", "shuffle", "holdout"}
    for variant in ("popular", "shuffle", "holdout"):
        assert 140 <= seen[variant] <= 260  # one in a hundred, four standard deviations
    assert EXPERIMENT_SALT in {one.name for one in declaration.running(DAY)}


FAULTS = {
    "shares that do not sum to one": (ONE.replace("0.5, policy = \"pop", "0.4, policy = \"pop"), "sum to 0.9"),
    "a variant without a model": (ONE.replace("popular", "challenger"), "no model answers for 'challenger'"),
    "an overlapping layer": (ONE + OTHER.replace("5000, 7500", "4999, 7500"), "first and second overlap in layer list"),
    "a control that is no variant": (ONE.replace('control = "a"', 'control = "z"'), "control 'z' is none of"),
    "a variant twice": (ONE.replace('name = "b"', 'name = "a"'), "named twice"),
    "one variant": (ONE.replace(', { name = "b", share = 0.5, policy = "popular" }', ""), "at least 2 items"),
    "a name twice": (ONE + OTHER.replace("second", "first"), "two experiments are named first"),
    "an empty range": (ONE.replace("[0, 5000]", "[7, 7]"), "no range"),
    "an end before the start": (ONE.replace("control =", "ends_on = 2026-10-01\ncontrol ="), "before it starts"),
    "a share below zero": (ONE.replace("0.5", "-0.5"), "greater than or equal to 0"),
    "the holdout's name": (ONE.replace('name = "b"', 'name = "holdout"'), "take part in nothing"),
    "an unknown word": (ONE + "\ntraffic = 1\n", "Extra inputs are not permitted"),
    "an unknown metric": (ONE + '\nprimary_metric = "joy"\n', "primary_metric"),
    "no TOML": ("name =", "Invalid value"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_run_is_refused_with_a_sentence(fault, declared):
    text, said = FAULTS[fault]
    with pytest.raises(UnusableInput, match=said):
        declared(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnusableInput, match="No such file"):
        read_declaration(tmp_path / "nothing.toml")


def test_experiments_of_one_layer_share_no_unit_and_the_rest_gets_the_champion(declared):
    split = Split.by_declaration(declared(ONE + OTHER), Decisions())
    dealt = [split.of(unit, DAY) for unit in UNITS]
    assert dealt == [split.of(unit, DAY) for unit in UNITS]
    wanted = [
        Assignment("holdout", "champion", 0.1),
        Assignment("a", "champion", 0.9 * 0.5 * 0.5, "first"),
        Assignment("b", "popular", 0.9 * 0.5 * 0.5, "first"),
        Assignment("c", "champion", 0.9 * 0.25 * 0.8, "second"),
        Assignment("d", "shuffle", 0.9 * 0.25 * 0.2, "second"),
        Assignment("champion", "champion", 0.9 * 0.25),
    ]
    told = {"holdout": 0.1, "a": 0.225, "b": 0.225, "c": 0.18, "d": 0.045, "champion": 0.225}
    assert split.variants(DAY) == pytest.approx(told)
    assert [split.policy_of(variant) for variant in ("d", "b", "holdout")] == ["shuffle", "popular", "champion"]
    counts = Counter(dealt)
    assert set(counts) == set(wanted)
    for assignment in wanted:
        assert abs(counts[assignment] / len(UNITS) - assignment.propensity) < 0.03


def test_layers_and_the_holdout_split_independently_of_each_other(declared):
    here = Split.by_declaration(declared(ONE.replace("[0, 5000]", "[0, 10000]")), Decisions())
    renamed = ONE.replace("[0, 5000]", "[0, 10000]").replace('"first"', '"another"')
    there = Split.by_declaration(declared(renamed), Decisions())
    pairs = Counter((here.of(unit, DAY).variant, there.of(unit, DAY).variant) for unit in UNITS)
    assert pairs["holdout", "holdout"] == sum(n for pair, n in pairs.items() if "holdout" in pair)
    for pair in ("aa", "ab", "ba", "bb"):
        assert abs(pairs[pair[0], pair[1]] / len(UNITS) - 0.9 / 4) < 0.03


def test_an_experiment_runs_from_its_first_day_to_its_end(declared):
    split = Split.by_declaration(declared(ONE.replace("control =", "ends_on = 2026-12-01\ncontrol =")), Decisions())
    variants = {day: {split.of(u, day).variant for u in UNITS[:200]} for day in (date(2026, 10, 31), DAY)}
    assert set(map(frozenset, variants.values())) == {frozenset({"champion", "holdout"})}
    assert {split.of(u, date(2026, 11, 30)).variant for u in UNITS[:200]} > {"a", "b"}


def test_a_stopped_variants_units_get_the_control_and_all_others_keep_theirs(declared, tmp_path):
    declaration = declared(ONE)
    path = tmp_path / "decided" / "experiments.json"
    assert read_decisions(path) == Decisions()
    stop = {"stopped_at": datetime(2026, 11, 9, tzinfo=UTC).isoformat(), "reason": "harm"}
    decisions = Decisions.model_validate({"experiments": {"first": {"stopped": {"b": stop}}}})
    write_decisions(path, decisions)
    assert read_decisions(path) == decisions
    before, after = (Split.by_declaration(declaration, decided) for decided in (Decisions(), read_decisions(path)))
    pairs = Counter((before.of(u, DAY).variant, after.of(u, DAY).variant) for u in UNITS)
    assert set(pairs) == {("holdout", "holdout"), ("champion", "champion"), ("a", "a"), ("b", "a")}
    assert {after.of(u, DAY).propensity for u in UNITS if after.of(u, DAY).variant == "a"} == {0.45}
    path.write_text(json.dumps({"experiments": {"first": {"stopped": ["b"]}}}))
    with pytest.raises(UnusableInput, match="delete it"):
        read_decisions(path)


def test_shares_of_a_setting_that_are_no_split_are_refused():
    assert Split.by_weights({"champion": 1.0}).of("u", DAY) == Assignment("champion", "champion", 1.0, EXPERIMENT_SALT)
    with pytest.raises(UnusableInput, match="RECSYS_VARIANT_WEIGHTS"):
        Split.by_weights({"champion": 0.9, "popular": 0.2})
