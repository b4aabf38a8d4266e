"""One suite that every model passes: fit on a world whose answers are known, export, serve from the bundle alone."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from recsys import retriever
from recsys.artifacts import BASELINE_MODEL, MODEL_ZOO, USER_FEATURES
from recsys.errors import CheckFailed, RecsysError
from recsys.retriever import Retriever
from tests.worlds import checkerboard as world
from training.model import OneOf, Workplace, module_of, space_of, write_model

SEQUENTIAL = {"embedding_size": 16, "epochs": 1, "min_steps": 60, "learning_rate": 0.02}
SEQUENTIAL |= {"dropout": 0.1, "input_dropout": 0.1}
TINY = {
    "popularity": {},
    "ials": {"embedding_size": 2, "epochs": 8},
    "content_ials": {"embedding_size": 2, "epochs": 8, "text_size": 2, "map_reg": 0.1},
    "contrastive_text": {
        "embedding_size": 4,
        "epochs": 1,
        "min_steps": 30,
        "batch_size": 32,
        "learning_rate": 0.002,
        "popularity_weight": 0.01,
    },
    "hybrid": {"embedding_size": 4, "min_steps": 30, "reg": 0.01, "text_size": 4},
    "slist": {"prior_rows": 0.0, "reg": 1.0},
    "two_tower": {"embedding_size": 16, "epochs": 1, "min_steps": 80, "batch_size": 20, "learning_rate": 0.02},
    "keras_two_tower": {"embedding_size": 4, "epochs": 1, "min_steps": 80, "batch_size": 20, "learning_rate": 0.02},
    "sasrec": SEQUENTIAL,
    "hstu": {**SEQUENTIAL, "age_bias": 0.0},
    "blend": {**SEQUENTIAL, "linear_reg": 1.0},
    "text_encoder": {"embedding_size": 4, "popularity_weight": 0.01},
    "ease": {"reg": 1.0},
    "item_knn": {},
    "spectral": {"components": 2},
    "lightgcn": {"embedding_size": 4, "min_steps": 30, "reg": 0.01},
    "mf": {"embedding_size": 4, "min_steps": 30, "reg": 0.01},
    "neumf": {"embedding_size": 4, "layers": (4, 4), "min_steps": 40, "reg": 0.01, "fold_in_reg": 0.01},
    "generative": {
        "levels": 2,
        "codes": 8,
        "text_size": 8,
        "embedding_size": 16,
        "hidden_size": 16,
        "heads": 2,
        "layers": 1,
        "decoder_layers": 1,
        "epochs": 1,
        "min_steps": 60,
        "learning_rate": 0.02,
        "beams": 24,
        "reg": 0.0,
    },
    "mult_vae": {"embedding_size": 4, "hidden_size": 16, "min_steps": 60, "learning_rate": 0.02},
}
TOWERS = ("two_tower", "keras_two_tower")
COLLABORATIVE = ("lightgcn", "mf", "mult_vae", "neumf", "hybrid", "contrastive_text")
PERSONAL = tuple(name for name in MODEL_ZOO if name != BASELINE_MODEL)
NEXT_EVENT = ("two_tower", "keras_two_tower", "sasrec", "hstu", "blend", "generative")
RANDOM = {"ials", "content_ials", *NEXT_EVENT, *COLLABORATIVE}
GRADIENT = (*NEXT_EVENT, *COLLABORATIVE)


class Fitted:
    """A model of the checkerboard and, written when first asked for, its bundle."""

    def __init__(self, name: str, folder: Path, cache: Path, *, data=None, seed: int = 1, **config):
        self.name, self.folder = name, folder
        self.data = data or world.training_data(features())
        module = module_of(name)
        configured = module.Config(**{**TINY[name], **config})
        self.model = module.fit(self.data, configured, seed, Workplace(threads=1, cache=cache))

    @cached_property
    def retriever(self) -> Retriever:
        framework = module_of(self.name).FRAMEWORK
        origin = {"framework": framework, "cut_id": "toy", "as_of": "2020-06-01T00:00:00+00:00"}
        write_model(self.folder, self.name, self.model, self.data, origin)
        return Retriever(self.folder / "bundle")

    def best(self, history: list[int], k: int) -> list[int]:
        """Return the native model's k best of the items that the history lacks."""
        scores = self.model.score([np.array(history)])[0]
        return [item for item in np.argsort(-scores, kind="stable").tolist() if item not in history][:k]


def features() -> np.ndarray:
    """User features of each event, a fifth of them unknown. (n, F)"""
    rng = np.random.default_rng(3)
    values = rng.gamma(2, 50, (len(world.training_data().items), len(USER_FEATURES))).astype(np.float32)
    return np.where(rng.random(values.shape) < 0.2, np.nan, values)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, cache):
    """A function name → the fitted model, each fitted once."""
    made: dict[str, Fitted] = {}

    def get(name: str) -> Fitted:
        if name not in made:
            made[name] = Fitted(name, tmp_path_factory.mktemp(name), cache)
        return made[name]

    return get


def test_the_suite_covers_every_model():
    assert set(TINY) == set(MODEL_ZOO)
    assert set(PERSONAL) == set(MODEL_ZOO) - {"popularity"}


@pytest.mark.parametrize("name", PERSONAL)
def test_what_is_left_of_the_own_colour_comes_first(fitted, name):
    items, _ = fitted(name).retriever.recommend(world.histories(), world.HELD_BACK)
    right = [set(row.tolist()) == world.held_back(user) for user, row in enumerate(items)]
    assert np.mean(right) >= 0.95, f"{np.mean(right):.0%} of the users get exactly what they have not used"


@pytest.mark.parametrize("name", PERSONAL)
@pytest.mark.parametrize("colour", [0, 1])
def test_a_user_unseen_in_training_is_folded_in(fitted, name, colour):
    items, _ = fitted(name).retriever.recommend([np.array([colour, colour + 8, colour + 4])], 6)
    assert (items[0] % 2 == colour).all()


@pytest.mark.parametrize("name", ["ials", "text_encoder", "mf", "neumf", "hybrid", *TOWERS])
def test_where_order_means_nothing_no_order_changes_the_answer(name, tmp_path, cache):
    data = replace(world.training_data(features()), is_ordered=False)
    model = Fitted(name, tmp_path, cache, data=data).model
    histories = world.histories()[:5]
    scores = model.score(histories)
    np.testing.assert_allclose(model.score([history[::-1] for history in histories]), scores, rtol=1e-4, atol=1e-4)
    assert np.ptp(scores, axis=1).min() > 0


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_tower_of_cosines_learns_and_its_bundle_scores_alike(name, is_ordered, tmp_path, cache):
    data = replace(world.training_data(features()), is_ordered=is_ordered)
    one = Fitted(name, tmp_path, cache, data=data, embedding_size=16, temperature=0.2, negatives=6)
    items, _ = one.retriever.recommend(world.histories(), world.HELD_BACK)
    assert np.mean([set(row.tolist()) == world.held_back(user) for user, row in enumerate(items)]) >= 0.95
    np.testing.assert_allclose(
        one.retriever.score(world.histories()), one.model.score(world.histories()), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", PERSONAL)
def test_similar_items_have_the_same_colour(fitted, name):
    for item in (4, 7):
        similar, scores = fitted(name).retriever.similar_items(item, 5)
        assert item not in similar
        assert (similar % 2 == item % 2).all()
        assert (np.diff(scores) <= 0).all()


def test_popularity_gives_everybody_the_most_used(fitted):
    counts = np.bincount(world.training_data().items, minlength=world.ITEMS)
    items, _ = fitted("popularity").retriever.recommend([np.array([0]), np.array([], int)], 3, filter_seen=False)
    assert items[0].tolist() == items[1].tolist()
    assert sorted(counts[items[0]], reverse=True) == sorted(counts, reverse=True)[:3]


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_the_bundle_scores_like_the_native_model(fitted, name):
    histories = [*world.histories()[:6], np.array([5]), np.arange(world.ITEMS), np.arange(1, 7)]
    rng = np.random.default_rng(5)
    known = rng.gamma(2, 50, (len(histories), len(USER_FEATURES)))
    known[0] = np.nan
    ours, native = (
        fitted(name).retriever.score(histories, known),
        fitted(name).model.score(histories, known.astype(np.float32)),
    )
    assert ours.shape == (len(histories), world.ITEMS)
    np.testing.assert_allclose(ours, native, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_lists_do_not_depend_on_who_else_asks(fitted, name):
    retriever, histories = fitted(name).retriever, world.histories()
    together, _ = retriever.recommend([*histories, np.array([3])], 5)
    alone, _ = retriever.recommend([histories[2]], 5)
    assert together[2].tolist() == alone[0].tolist()


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_k_beyond_the_catalogue_gives_every_unseen_item_once(fitted, name):
    history = world.histories()[0]
    items, scores = fitted(name).retriever.recommend([history], world.ITEMS + 10)
    unseen = sorted(set(range(world.ITEMS)) - set(history.tolist()))
    assert sorted(items[0][items[0] >= 0].tolist()) == unseen
    assert (items[0][len(unseen) :] == -1).all()
    assert np.isneginf(scores[0][len(unseen) :]).all()


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_a_user_who_has_seen_everything_gets_an_empty_list(fitted, name):
    items, _ = fitted(name).retriever.recommend([np.arange(world.ITEMS)], 5)
    assert (items == -1).all()


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_unknown_items_count_as_nothing(fitted, name):
    retriever = fitted(name).retriever
    known = retriever.indices(["toy:003", "", "-9223372036854775809", "toy:3", "toy:003 "])
    assert known.tolist() == [3]
    strange = retriever.indices(["no such item"])
    items, _ = retriever.recommend([strange], 4)
    by_popularity = np.lexsort((np.arange(world.ITEMS), -retriever.popularity))[:4]
    assert items[0].tolist() == by_popularity.tolist()


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_an_item_used_twice_counts_once_at_its_latest_place(fitted, name):
    retriever = fitted(name).retriever
    once, twice = retriever.score([np.array([6, 2, 8])]), retriever.score([np.array([2, 6, 2, 8])])
    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_the_seed_decides(fitted, tmp_path, cache, name):
    histories = world.histories()[:4]
    first = fitted(name).model.score(histories)
    again = Fitted(name, tmp_path, cache).model.score(histories)
    other = Fitted(name, tmp_path, cache, seed=2).model.score(histories)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize("name", sorted(set(MODEL_ZOO) - RANDOM))
def test_without_chance_the_seed_changes_nothing(fitted, tmp_path, cache, name):
    histories = world.histories()[:4]
    other = Fitted(name, tmp_path, cache, seed=2).model.score(histories)
    np.testing.assert_array_equal(fitted(name).model.score(histories), other)


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_events_that_arrive_twice_change_no_answer(tmp_path, cache, name):
    data = world.training_data()
    rows = np.repeat(np.arange(len(data.items)), 2)
    doubled = replace(data, users=data.users[rows], items=data.items[rows], instants=data.instants[rows])
    best = Fitted(name, tmp_path, cache, data=doubled).best([0, 2, 4], 3)
    if name != BASELINE_MODEL:
        assert [item % 2 for item in best] == [0, 0, 0]
    assert len(set(best)) == 3


@pytest.mark.parametrize("name", MODEL_ZOO)
@pytest.mark.parametrize(("users", "items"), [([0, 0], [3, 5]), ([0, 1], [3, 3]), ([0], [3])])
def test_one_user_or_one_item_is_answered_or_refused_in_a_sentence(tmp_path, cache, name, users, items):
    data = world.training_data()
    tiny = replace(
        data,
        users=np.array(users, np.int32),
        items=np.array(items, np.int32),
        instants=data.instants[: len(users)],
    )
    pairs = len(set(zip(users, items, strict=True)))
    if name in NEXT_EVENT and pairs == len(set(users)):  # nobody has a next event
        with pytest.raises(RecsysError, match="No user has two events"):
            Fitted(name, tmp_path, cache, data=tiny, min_steps=2)
        return
    settings = {"min_steps": 2} if name in GRADIENT else {}
    model = Fitted(name, tmp_path, cache, data=tiny, **settings)
    assert np.isfinite(model.model.score([np.array([3])])).all()
    assert sorted(model.best([3], 30)) == sorted(set(range(world.ITEMS)) - {3})


@pytest.mark.parametrize("name", GRADIENT)
def test_a_training_that_diverges_stops_with_a_sentence(tmp_path, cache, name):
    with pytest.raises(CheckFailed, match="diverged"):
        Fitted(name, tmp_path, cache, learning_rate=1e30)
    assert not (tmp_path / "bundle").exists()


def test_an_item_that_nobody_has_used_comes_to_those_whose_taste_its_text_meets(tmp_path, cache):
    data, new = world.training_data(), {5, 8}
    kept = ~np.isin(data.items, list(new))
    rest = replace(data, users=data.users[kept], items=data.items[kept], instants=data.instants[kept])
    model = Fitted("content_ials", tmp_path, cache, data=rest)
    scores = model.model.score(world.histories())
    for user, history in enumerate(world.histories()):
        own, other = (8, 5) if user % 2 == 0 else (5, 8)
        assert scores[user, own] > scores[user, other]
        assert own in model.best(history[~np.isin(history, list(new))].tolist(), 2 + world.HELD_BACK)
    assert (
        np.abs(Fitted("ials", tmp_path / "ials", cache, data=rest).model.score(world.histories())[:, [5, 8]]).max() == 0
    )


def test_a_scorer_answers_in_blocks_as_at_once(fitted, monkeypatch):
    histories = [*world.histories()[:5], np.array([], int), np.array([3])]
    served = fitted("neumf").retriever
    assert served.manifest.kind == "scorer"
    at_once = served.score(histories)
    monkeypatch.setattr(retriever, "BLOCK_PAIRS", 2 * world.ITEMS)
    np.testing.assert_allclose(served.score(histories), at_once, atol=1e-5)


def test_weights_that_are_no_numbers_are_never_written(tmp_path, cache):
    module = module_of("ials")
    model = module.IALS(
        np.full((world.ITEMS, 4), np.nan, np.float32), np.ones(world.ITEMS, np.float32), module.Config()
    )
    with pytest.raises(CheckFailed, match="not registered"):
        write_model(tmp_path, "ials", model, world.training_data(), {"framework": "numpy", "cut_id": "c", "as_of": "d"})
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_configurations_are_frozen_and_refuse_unknown_fields(name):
    config = module_of(name).Config()
    field = next(iter(type(config).model_fields))
    with pytest.raises(ValidationError):
        setattr(config, field, 1)
    with pytest.raises(ValidationError):
        type(config)(no_such_field=1)


def test_an_unknown_model_is_refused():
    with pytest.raises(RecsysError, match=f"Choose among {MODEL_ZOO[0]}"):
        module_of("crystal_ball")


def test_a_text_is_encoded_once(tmp_path, caplog):
    module = module_of("text_encoder")
    place, texts = Workplace(1, tmp_path), ("One film. Drama", "Another film. War")
    with caplog.at_level("INFO"):
        first = module.encode(texts, module.Config(), place)
        again = module.encode((texts[1], texts[0]), module.Config(), place)
    assert "2 of 2 texts to encode" in caplog.text
    assert "0 of 2 texts to encode" in caplog.text
    np.testing.assert_array_equal(first, again[::-1])


@pytest.mark.parametrize("name", MODEL_ZOO)
def test_what_may_be_searched_are_settings_and_holds_the_own_ones(name):
    own = module_of(name).Config()
    space = space_of(module_of(name))
    assert space, f"{name} cannot be tuned: give it a SPACE"
    for field, values in space.items():
        value = getattr(own, field)
        inside = value in values.values if isinstance(values, OneOf) else values.low <= value <= values.high
        assert inside, f"{field} {value} lies outside {values}"
