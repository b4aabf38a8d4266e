"""Vectors of texts: alike texts lie together, the same texts give the same numbers, few give what they hold."""

from types import SimpleNamespace

import numpy as np
import psycopg
import pytest

from recsys.artifacts import DIM_ITEMS, ITEM_TEXTS
from recsys.interval import Interval
from recsys.warehouse import connect
from tests.worlds.warehouse import AS_OF, EPOCH
from training.analytics import texts

TITLES = ("Space war among the stars", "A battle of starships", "Cooking with garlic", "Recipes for an Italian kitchen")


def test_directions_are_unit_vectors_with_one_sign_for_the_same_texts():
    vectors = np.random.default_rng(1).normal(size=(50, 100))
    found = texts.directions(vectors)
    assert found.shape == (50, texts.SIZE)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert texts.directions(vectors[::-1])[::-1] == pytest.approx(found, abs=1e-4)
    assert texts.directions(vectors[:1]).tolist() == [[0.0] * texts.SIZE]


@pytest.mark.services
def test_items_of_like_texts_have_like_vectors(world, monkeypatch, tmp_path):
    settings = world("postgres")
    place = SimpleNamespace(threads=1, var_dir=tmp_path)
    monkeypatch.setattr(texts, "load_settings", lambda: place)
    with connect(settings) as connection:
        connection.execute(f"""
            create table {DIM_ITEMS} (item_id text, domain text, title text, categories text[], creators text[],
                published_year integer, interaction_count bigint, is_available boolean)""")
        for number, title in enumerate(TITLES):
            row = (f"m:{number}", "movies", title, [], [], None, 1, True)
            connection.execute(f"insert into {DIM_ITEMS} values (%s, %s, %s, %s, %s, %s, %s, %s)", row)
        for _ in range(2):  # may run twice
            done = texts.run(connection, Interval(("movies", "books"), AS_OF), seed=1)
        assert done["items"] == {"movies": 4, "books": 0}
        _check_likeness(connection)


def _check_likeness(connection: psycopg.Connection) -> None:
    found = connection.execute(
        f"select event_timestamp, item_text_vector from {ITEM_TEXTS} order by item_id"
    ).fetchall()
    assert {instant for instant, _ in found} == {EPOCH}
    vectors = np.array([vector for _, vector in found])
    alike = vectors @ vectors.T
    assert alike[0, 1] > max(alike[0, 2], alike[0, 3])
    assert alike[2, 3] > max(alike[2, 0], alike[2, 1])
