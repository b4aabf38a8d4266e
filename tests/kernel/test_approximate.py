"""The approximate index: what it finds beside a full search, what it must not show, and that it says what it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.approximate import INDEX, TUNED, Approximate, Tuned, _fewest, _without, build
from recsys.bundle import Catalogue, Manifest, write_bundle
from recsys.errors import CheckFailed
from recsys.retriever import Retriever

ITEMS, D, K = 6000, 16, 20


def vectors(seed: int = 1) -> np.ndarray:
    """Items in 60 neighbourhoods, as a trained model's are."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(60, D))
    return (centres[chance.integers(60, size=ITEMS)] + 0.4 * chance.normal(size=(ITEMS, D))).astype(np.float32)


def users(items: np.ndarray, n: int = 60, seed: int = 2) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.stack([items[chance.integers(ITEMS, size=3)].mean(axis=0) for _ in range(n)]).astype(np.float32)


@pytest.fixture(scope="module", params=[False, True], ids=["no bias", "with bias"])
def built(request, tmp_path_factory):
    items = vectors()
    bias = np.random.default_rng(3).normal(size=ITEMS).astype(np.float32) if request.param else None
    folder = tmp_path_factory.mktemp("index")
    tuned = build(folder, items, bias, users(items), 0.97)
    return folder, items, bias, tuned, Approximate(folder, items, bias)


def full(items, bias, user, out=()):
    scores = items @ user + (0 if bias is None else bias)
    scores[list(out)] = -np.inf
    return np.lexsort((np.arange(ITEMS), -scores))[:K], np.sort(scores)[::-1][:K]


def test_it_finds_what_it_was_tuned_to_find_for_users_that_it_has_not_seen(built):
    _, items, bias, tuned, index = built
    assert tuned.recall > 0.94
    assert 1 <= tuned.probes < tuned.cells
    found = [len(set(index.best(user, K, [])[0]) & set(full(items, bias, user)[0])) for user in users(items, seed=9)]
    assert np.mean(found) / K > 0.95


def test_what_it_finds_has_its_full_score_in_order(built):
    _, items, bias, _, index = built
    for user in users(items, n=10, seed=4):
        best, scores = index.best(user, K, [])
        np.testing.assert_allclose(scores, items[best] @ user + (0 if bias is None else bias[best]), rtol=1e-5)
        assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("share", [3, 2000], ids=["few", "many"])
def test_what_is_left_out_is_not_found_and_its_place_is_taken(built, share):
    _, items, bias, _, index = built
    user = users(items, n=1, seed=5)[0]
    first, _ = full(items, bias, user)
    out = np.union1d(first[:3], np.arange(share))
    for _ in range(2):  # the second time from what was remembered
        best, _ = index.best(user, K, [out, first[3:5]])
        assert len(best) == len(set(best)) == K
        assert not set(best) & {*out, *first[:5]}
    expected, _ = full(items, bias, user, {*out, *first[:5]})
    assert len(set(expected) & set(best)) / K > 0.9


def test_everything_left_out_is_an_empty_list_and_too_little_found_is_said(built):
    *_, index = built
    user = np.ones(D, np.float32)
    assert len(index.best(user, K, [slice(None)])[0]) == 0
    assert index.best(user, ITEMS, []) is None


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 63, 64, 100])
def test_no_more_cells_are_looked_at_than_the_recall_needs(needed):
    assert _fewest(100, lambda probes: probes >= needed) == needed
    assert _fewest(needed, lambda probes: False) is None


def test_a_recall_that_cannot_be_reached_is_no_index(tmp_path):
    items = vectors()
    with pytest.raises(CheckFailed, match="looking everywhere"):
        build(tmp_path, items, None, users(items), 1.01)
    assert not (tmp_path / TUNED).exists()


def test_an_index_of_another_catalogue_is_refused(built, tmp_path):
    folder, items, bias, *_ = built
    with pytest.raises(ValueError, match="is of"):
        Approximate(folder, items[:-1], None if bias is None else bias[:-1])
    (tmp_path / TUNED).write_text((folder / TUNED).read_text())
    (tmp_path / INDEX).write_bytes(b"no index")
    with pytest.raises(ValueError, match="cannot be read"):
        Approximate(tmp_path, items, bias)


def test_a_bundle_with_an_index_answers_by_it(tmp_path):
    items = vectors()
    ids = [f"m:{n:05}" for n in range(ITEMS)]
    manifest = Manifest(model="mean", framework="numpy", kind="mean", cut_id="c", as_of="2020-01-01T00:00:00Z")
    catalogue = Catalogue(
        item_id=ids, domain=["movies"] * ITEMS, title=ids, categories=[[]] * ITEMS, published_year=[None] * ITEMS
    )
    write_bundle(tmp_path, manifest, catalogue, {"popularity": np.arange(ITEMS), "item_vectors": items})
    histories = [np.arange(n, n + 5) for n in range(0, 400, 10)]
    exact = Retriever(tmp_path)
    tuned = build(tmp_path, items, None, exact.encode(histories), 0.97)
    nearly = Retriever(tmp_path)
    assert (exact.index_recall, nearly.index_recall) == (None, tuned.recall)
    asked = [*histories[:20], np.empty(0, np.int64)]
    given = asked, None, [K] * 21, [[history] for history in asked]
    pairs = list(zip(exact.best(*given), nearly.best(*given), strict=True))
    shared = [len(set(one[0]) & set(other[0])) for one, other in pairs]
    assert np.mean(shared) / K > 0.94
    assert pairs[-1][0][0].tolist() == pairs[-1][1][0].tolist()  # popularity is no matter of an index
    assert all(not set(other[0]) & set(history) for (_, other), history in zip(pairs, asked, strict=True))
    whole = nearly.best([histories[0]], None, [ITEMS], [[histories[0]]])[0]
    assert len(whole[0]) == ITEMS - 5  # more than the index finds: scored in full


def test_what_was_tuned_is_told(built):
    folder, _, _, tuned, index = built
    assert Tuned.model_validate_json((folder / TUNED).read_text()) == tuned == index.tuned
    assert (tuned.items, tuned.users) == (ITEMS, 60)


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_what_is_dropped_is_what_isin_finds(items, dropped):
    found, out = np.array(items, np.int64), np.sort(np.array(dropped, np.int64))
    assert _without(found, out).tolist() == found[~np.isin(found, out)].tolist()
