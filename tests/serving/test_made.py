"""The text of an answer, which no type has checked, is that of the type."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import Answer
from serving.item_texts import ItemTexts
from serving.made import MadeAnswer
from serving.model import ServedModel, load
from tests.worlds.served import ITEMS, write_world

SCORES = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ServedModel:
    return load(write_world(tmp_path_factory.mktemp("model")))


@given(shown=st.lists(st.tuples(st.integers(0, len(ITEMS) - 1), SCORES), max_size=5), user_id=st.text(max_size=8))
def test_the_text_of_an_answer_is_that_of_its_contract(model, shown, user_id):
    items, scores = [item for item, _ in shown], [score for _, score in shown]
    made = MadeAnswer("5f0c", user_id, "champion", model, "personalised", items, scores)
    assert made.text() == made.contract().model_dump_json().encode()
    read = Answer.model_validate_json(made.text())
    assert [(item.rank, item.item_id, item.score) for item in read.items] == [
        (rank, ITEMS[item], score) for rank, (item, score) in enumerate(shown, start=1)
    ]


def test_names_that_look_like_json_stay_names(model):
    hostile = ['"},{"rank":1,"item_id":"x', "\\", "a\nb", "ü\u2028"]
    named = {"item_id": hostile, "title": hostile[::-1], "categories": [[name] for name in hostile]}
    catalogue = model.retriever.catalogue.model_copy(update=named | {"domain": ["movies"] * 4})
    texts = ItemTexts(catalogue)
    for place, name in enumerate(hostile):
        assert json.loads(b"{" + texts[place]) == {
            "item_id": name, "title": hostile[-1 - place], "domain": "movies", "categories": [name],
        }  # fmt: skip
