"""What answers leave behind is put into words after they are out, and all of it reaches the child."""

import asyncio
import sys

import pytest
from pydantic_core import to_json

from recsys.schemas import ShownList
from serving.explanation import RequestRecord, explain
from serving.left_behind import Decision, Facts, record, shown
from serving.made import MadeAnswer
from serving.metrics import Metrics
from serving.model import ServedModel, load
from serving.outbox import TOLD_AT_ONCE, Outbox
from serving.recommend import Query, recommend
from tests.serving.ports import INSTANT
from tests.worlds.served import EVEN, write_world

CHILD = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ServedModel:
    return load(write_world(tmp_path_factory.mktemp("model")))


def left_behind(model: ServedModel, request_id: str) -> Decision:
    query = Query(2, history=EVEN[:2])
    (ranking,) = recommend(model, [query])
    answer = MadeAnswer(request_id, "ann", "champion", model, ranking.rung, ranking.items, ranking.scores)
    return Decision(answer, query, "model", 1.0, INSTANT, ranking)


@pytest.mark.parametrize("answers", [1, TOLD_AT_ONCE])
def test_all_that_answers_leave_behind_reaches_the_child_once(model, tmp_path, answers):
    out = tmp_path / "out"

    async def answer() -> None:
        outbox = Outbox({}, Metrics(), (sys.executable, "-c", CHILD, str(out)))
        outbox.start()
        while outbox._child is None:
            await asyncio.sleep(0)
        for number in range(answers):
            outbox.keep(left_behind(model, f"r{number}"))
            assert len(outbox._to_tell) < TOLD_AT_ONCE
        assert bool(outbox._lines) == (answers > 1)  # one answer's waits for the flush
        await outbox.close()

    asyncio.run(answer())
    lines = out.read_bytes().splitlines()
    told = [Facts.read(line[1:]) for line in lines if line[:1] == b"D"]
    lists = [ShownList.model_validate_json(shown(one)) for one in told]
    records = [RequestRecord.model_validate_json(to_json(record(one))) for one in told]
    expected = [f"r{number}" for number in range(answers)]

    assert len(lines) == answers
    assert [one.request_id for one in lists] == [one.request_id for one in records] == expected
    assert [item.item_id for item in lists[0].items] == [item.item_id for item in records[0].items]
    assert records[0] == explain(left_behind(model, "r0"))


def test_before_the_child_is_there_everything_waits_as_facts_within_bounds(model):
    outbox = Outbox({}, Metrics())
    outbox.keep(left_behind(model, "r"))

    assert [line[:1] for line in outbox._lines] == [b"D"]
    assert outbox._to_tell == []
