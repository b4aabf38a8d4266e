"""The live split: read at the start, a decision picked up while it runs; the arm in random order."""

from datetime import UTC, date, datetime

import pytest
from fastapi.testclient import TestClient

from recsys.errors import UnusableInput
from recsys.experiments import read_declaration
from recsys.interleaving import team_draft
from recsys.settings import Settings
from recsys.split import Decided, Decisions, Stop, decisions_file, write_decisions
from serving.recommend import Ranking, in_random_order
from serving.splits import LiveSplits
from tests.serving.ports import assemble, impressions_of
from tests.worlds.served import EVEN, write_world

DAY = date(2026, 12, 1)
STOP = Stop(stopped_at=datetime(2026, 11, 9, tzinfo=UTC), reason="harm")


def test_a_stopped_variant_is_gone_without_a_restart_and_a_broken_file_changes_nothing(tmp_path):
    settings = Settings(_env_file=None, var_dir=tmp_path)
    splits, units = LiveSplits(settings), [f"u{number}" for number in range(1000)]
    first = splits.current
    assert {first.of(unit, DAY).variant for unit in units} == {"champion", "popular", "shuffle", "holdout"}
    splits.refresh()
    assert splits.current is first

    (experiment,) = read_declaration().running(DAY)
    decided = Decisions(experiments={experiment.name: Decided(stopped={"shuffle": STOP})})
    write_decisions(decisions_file(settings), decided)
    splits.refresh()
    assert {splits.current.of(unit, DAY).variant for unit in units} == {"champion", "popular", "holdout"}
    stopped = splits.current
    decisions_file(settings).write_text("broken")
    splits.refresh()
    assert splits.current is stopped


def test_a_process_that_does_not_know_its_split_does_not_start(tmp_path):
    (tmp_path / "declared.toml").write_text("holdout = 2")
    with pytest.raises(UnusableInput, match="holdout"):
        LiveSplits(Settings(_env_file=None, var_dir=tmp_path, experiments_file=tmp_path / "declared.toml"))


def test_random_order_is_the_requests_own_and_puts_every_item_first_as_often():
    ranking = Ranking("personalised", [4, 7, 9], [3.0, 2.0, 1.0])
    orders = [in_random_order(ranking, str(number)) for number in range(900)]
    assert orders[0] == in_random_order(ranking, "0")
    assert {tuple(sorted(zip(o.items, o.scores, strict=True))) for o in orders} == {((4, 3.0), (7, 2.0), (9, 1.0))}
    firsts = [order.items[0] for order in orders]
    for item in ranking.items:
        assert abs(firsts.count(item) - 300) < 60  # four standard deviations


def test_the_shuffled_list_holds_the_champions_items_and_logs_the_chance_of_their_place(tmp_path):
    parts = assemble(write_world(tmp_path / "m"), {"shuffle": 0.5, "champion": 0.5})
    client, seen = TestClient(parts.app), set()
    for number in range(30):
        parts.users.know(f"u{number}", [EVEN[0]])
        answer = client.get(f"/v1/users/u{number}/recommendations", params={"k": 4}).json()
        items = [item["item_id"] for item in answer["items"]]
        assert sorted(items) == EVEN[1:5]
        impressions = impressions_of(parts.records.shown[-1])
        assert {one.propensity for one in impressions} == {0.5 / 4 if answer["variant"] == "shuffle" else 0.5}
        seen.add((answer["variant"], items == EVEN[1:5]))
    assert ("shuffle", False) in seen
    assert {order for variant, order in seen if variant == "champion"} == {True}


def test_an_interleaved_list_holds_what_both_captains_chose_in_turns(tmp_path):
    parts = assemble(write_world(tmp_path / "m"), {"interleaved": 0.5, "champion": 0.25, "popular": 0.25})
    client, lists = TestClient(parts.app), {}
    for number in range(60):
        parts.users.know(f"u{number}", [EVEN[0]])
        answer = client.get(f"/v1/users/u{number}/recommendations", params={"k": 4}).json()
        lists.setdefault(answer["variant"], []).append(answer)
    (mine, *_), (everybodys, *_) = (
        [[item["item_id"] for item in answer["items"]] for answer in lists[name]] for name in ("champion", "popular")
    )
    assert mine != everybodys
    for answer in lists["interleaved"]:
        shown = [item["item_id"] for item in answer["items"]]
        assert shown == team_draft(mine, everybodys, 4, answer["request_id"])
        assert len(set(shown)) == 4
    assert len({tuple(item["item_id"] for item in answer["items"]) for answer in lists["interleaved"]}) > 1
    preview = client.get("/v1/users/u1/preview", params={"k": 4, "variant": "interleaved"}).json()
    assert [item["item_id"] for item in preview["items"]] == team_draft(mine, everybodys, 4, "u1")
