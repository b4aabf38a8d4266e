"""The shared parts of the collaborative filters against the same thing said the long way."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch

from tests.worlds import checkerboard as world
from training import collaborative, encoders
from training.collaborative import CatalogueSoftmax, Interactions, as_tensor, largest_singular_vectors, normalised
from training.factors import FoldIn
from training.model import HasUsers, Workplace, module_of
from training.models import lightgcn, mf
from training.pairs import AllPairs, PairFoldIn, PairLoss


def test_the_softmax_and_its_gradient_are_those_of_autograd():
    rng = np.random.default_rng(1)
    used = scipy.sparse.random_array((7, 11), density=0.4, rng=rng, dtype=np.float32).tocsr()
    total = torch.from_numpy(used.sum(1))
    ours = [torch.from_numpy(rng.normal(size=shape)).float().requires_grad_() for shape in ((7, 3), (11, 3), (11,))]
    theirs = [part.detach().double().requires_grad_() for part in ours]
    loss = CatalogueSoftmax.apply(*ours, as_tensor(used), as_tensor(used.T), total)
    users, vectors, bias = theirs
    share = (users @ vectors.T + bias).log_softmax(1)
    expected = -(torch.from_numpy(used.toarray()).double() * share).sum()
    (2 * loss).backward()
    (2 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own.grad, other.grad, atol=1e-4)


def test_the_latest_items_weigh_most_where_there_is_an_order():
    data = world.training_data()
    user, items = 5, world.histories()[5]
    weighed = Interactions.of(data, recency_exponent=1.0).matrix.toarray()[user]
    np.testing.assert_allclose(weighed[items], 1 / np.arange(len(items), 0, -1), rtol=1e-6)
    assert np.count_nonzero(weighed) == len(items)
    unordered = Interactions.of(replace(data, is_ordered=False), recency_exponent=1.0).matrix
    assert set(unordered.data) == {1.0}


def test_users_without_events_have_no_row():
    data = world.training_data()
    kept = data.users % 3 != 0
    fewer = replace(data, users=data.users[kept], items=data.items[kept], instants=data.instants[kept])
    interactions = Interactions.of(fewer)
    assert interactions.users.tolist() == [user for user in range(world.USERS) if user % 3]
    rows = interactions.matrix[interactions.places(np.array([4, 38]))].toarray()
    assert [set(np.flatnonzero(row)) for row in rows] == [set(world.histories()[user]) for user in (4, 38)]


def test_the_singular_vectors_are_found():
    matrix = normalised(Interactions.of(world.training_data()).matrix)
    left, values, right = largest_singular_vectors(matrix, 4, np.random.default_rng(1))
    exact = np.linalg.svd(matrix.toarray())[1]
    np.testing.assert_allclose(values, exact[:4], rtol=1e-3)
    np.testing.assert_allclose(matrix @ right[:, :2], left[:, :2] * values[:2], atol=1e-4)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_is_the_mean_of_the_powers_of_the_whole_graph(layers):
    interactions = Interactions.of(world.training_data())
    graph = lightgcn.Graph(interactions, lightgcn.Config(embedding_size=3, layers=layers), np.random.default_rng(1))
    used = interactions.matrix.toarray()
    adjacency = np.block([[np.zeros((len(used),) * 2), used], [used.T, np.zeros((used.shape[1],) * 2)]])
    degree = np.maximum(adjacency.sum(1), 1e-12)
    adjacency /= np.sqrt(np.outer(degree, degree))
    zero = torch.cat([graph.users, graph.items]).detach().numpy()
    expected = sum(np.linalg.matrix_power(adjacency, power) @ zero for power in range(layers + 1)) / (layers + 1)
    users, items, bias = (part.detach().numpy() for part in graph())
    np.testing.assert_allclose(np.vstack([users, items]), expected, atol=1e-5)
    assert not bias.any()


@pytest.mark.parametrize(("ridge", "recency"), [(0.3, 0.0), (0.02, 0.5)])
def test_fold_in_finds_the_vector_that_the_loss_asks_for(ridge, recency):
    rng = np.random.default_rng(2)
    items, size, length = 40, 4, 6
    vectors, bias = torch.from_numpy(rng.normal(size=(items, size))).float(), torch.zeros(items)
    centred = vectors - vectors.mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / items)
    fold = FoldIn(vectors @ axes, bias, variance, ridge, 0.5, recency, steps=60)
    history = torch.from_numpy(rng.permutation(items)[None, :length])
    found = fold(history, torch.ones(1, length))[0]  # (D,)

    weights = (1.0 + torch.arange(length).flip(0)) ** -recency
    user = found.clone().requires_grad_()
    likelihood = (weights * (vectors @ axes @ user + bias).log_softmax(0)[history[0]]).sum()
    (-likelihood + ridge * weights.sum() ** 0.5 * user.square().sum()).backward()
    assert found.norm() > 0.1
    assert user.grad.norm() < 1e-3

    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), history], 1)
    mask = torch.cat([torch.zeros(1, 3), torch.ones(1, length)], 1)
    torch.testing.assert_close(fold(padded, mask)[0], found)


@pytest.mark.parametrize("name", ["lightgcn", "mf", "neumf"])
def test_users_of_the_training_are_served_by_their_own_vectors(tmp_path, name):
    module, data = module_of(name), replace(world.training_data(), users=world.training_data().users * 3)
    small = {"embedding_size": 4, "min_steps": 40, "reg": 0.01}
    model = module.fit(data, module.Config(**small), 1, Workplace(1, tmp_path))
    assert isinstance(model, HasUsers)
    scores = model.score_users(np.array([3, 9, 6]))  # the users 1, 3 and 2 of the world
    for row, user in enumerate((1, 3, 2)):
        scores[row, world.histories()[user]] = -np.inf
        assert set(np.argsort(-scores[row])[: world.HELD_BACK]) == world.held_back(user)


def test_a_large_catalogue_is_learned_from_a_part_at_a_time(tmp_path):
    data = world.training_data()
    config = mf.Config(embedding_size=4, min_steps=60, reg=0.01, max_candidates=8, batch_size=16)
    scores = mf.fit(data, config, 1, Workplace(1, tmp_path)).score([np.array([0, 4, 8]), np.array([1, 5, 9])])
    best = np.argsort(-scores, axis=1)[:, : world.ITEMS // 3]
    assert (best[0] % 2 == 0).all()
    assert (best[1] % 2 == 1).all()


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    data, config = world.training_data(), mf.Config(embedding_size=4, epochs=8, min_steps=1, batch_size=16)
    whole = mf.fit(data, config, 1, Workplace(1, tmp_path / "whole"))
    check, seen = collaborative.check_finite, []

    def killed_at_step_14(loss: float, name: str, step: int) -> None:
        seen.append(step)
        if step == 14:
            raise KeyboardInterrupt
        check(loss, name, step)

    monkeypatch.setattr(collaborative, "check_finite", killed_at_step_14)
    with pytest.raises(KeyboardInterrupt):
        mf.fit(data, config, 1, Workplace(1, tmp_path / "killed"))
    monkeypatch.setattr(collaborative, "check_finite", lambda loss, name, step: seen.append(step))
    resumed = mf.fit(data, config, 1, Workplace(1, tmp_path / "killed"))
    assert 1 < seen[seen.index(14) + 1] <= 14
    torch.testing.assert_close(resumed.users, whole.users, rtol=0, atol=0)


def test_the_loss_of_all_pairs_and_its_gradient_are_those_of_autograd():
    rng = np.random.default_rng(1)
    used = scipy.sparse.random_array((7, 11), density=0.4, rng=rng, dtype=np.float32).tocoo()
    row, column = (torch.from_numpy(index.astype(np.int64)) for index in used.coords)
    ours = [torch.from_numpy(rng.normal(size=shape)).float().requires_grad_() for shape in ((7, 3), (11, 3), (11,))]
    theirs = [part.detach().double().requires_grad_() for part in ours]
    loss = AllPairs.apply(*ours, row, column, torch.from_numpy(used.data), 0.3)
    users, vectors, bias = theirs
    scores, x = users @ vectors.T + bias, torch.from_numpy(used.toarray()).double()
    expected = (x * (1 - scores).square() + 0.3 * (x == 0) * scores.square()).sum()
    (2 * loss).backward()
    (2 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own.grad, other.grad, atol=1e-4)


@pytest.mark.parametrize("recency", [0.0, 0.5])
def test_fold_in_finds_the_vector_that_the_loss_of_all_pairs_asks_for(recency):
    rng = np.random.default_rng(2)
    items, size, length, reg, alpha = 40, 4, 6, 0.05, 0.3
    vectors, bias = torch.from_numpy(rng.normal(size=(items, size))).float(), torch.full((items,), 0.1)
    variance, axes = torch.linalg.eigh(alpha * vectors.T @ vectors)
    fold = PairFoldIn(vectors @ axes, bias, variance, reg, alpha, recency, steps=200)
    history = torch.from_numpy(rng.permutation(items)[None, :length])
    found = fold(history, torch.ones(1, length))[0]  # (D,)

    weights = torch.zeros(items).index_put((history[0],), (1.0 + torch.arange(length).flip(0)) ** -recency)
    user = found.clone().requires_grad_()
    scores = vectors @ axes @ user + bias
    loss = (weights * (1 - scores).square() + alpha * (weights == 0) * scores.square()).sum()
    (loss + reg * (weights.sum() + alpha * items) * user.square().sum()).backward()
    assert found.norm() > 0.1
    assert user.grad.norm() < 1e-3


@pytest.mark.parametrize("name", ["mf", "neumf"])
def test_without_order_the_loss_of_all_pairs_serves_users_by_their_own_vectors_and_strangers_alike(tmp_path, name):
    module, data = module_of(name), world.training_data()
    small = {"embedding_size": 4, "min_steps": 60, "reg": 0.02, "unobserved_weight": 0.2, "recency_exponent": 0.0}
    model = module.fit(data, module.Config(**small), 1, Workplace(1, tmp_path))
    users = np.array([1, 3, 2])
    histories = [world.histories()[user] for user in users]
    for scores in (model.score_users(users), model.score(histories)):
        for row, user in enumerate(users):
            scores[row, histories[row]] = -np.inf
            assert set(np.argsort(-scores[row])[: world.HELD_BACK]) == world.held_back(user)


def test_users_are_solved_exactly_for_the_loss_of_all_pairs():
    rng, reg, alpha = np.random.default_rng(5), 0.05, 0.3
    matrix = scipy.sparse.random_array((7, 30), density=0.3, rng=rng, dtype=np.float32).tocsr()
    interactions = Interactions(np.arange(7), matrix)
    vectors, bias = torch.from_numpy(rng.normal(size=(30, 4))).float(), torch.from_numpy(rng.normal(size=30)).float()
    config = mf.Config(reg=reg, unobserved_weight=alpha)
    users = PairLoss(torch.nn.Identity(), interactions, config).solved(torch.empty(7, 4), vectors, bias)

    free, x = users.clone().double().requires_grad_(), torch.from_numpy(matrix.toarray()).double()
    scores = free @ vectors.double().T + bias
    loss = (x * (1 - scores).square() + alpha * (x == 0) * scores.square()).sum(1)
    (loss + reg * (x.sum(1) + alpha * 30) * free.square().sum(1)).sum().backward()
    assert (users.norm(dim=1) > 0.1).all()
    assert free.grad.norm() < 1e-3


def test_a_sum_over_the_history_is_the_product_with_all_items():
    generator = torch.Generator().manual_seed(1)
    history, vectors = torch.randint(0, 30, (4, 6), generator=generator), torch.rand(30, 5, generator=generator)
    weights = torch.rand(4, 6, generator=generator) * (torch.arange(6) > 1)  # what pads weighs nothing
    summed = encoders.weighted_sum(history, weights, vectors)
    torch.testing.assert_close(summed, encoders.as_rows(history, weights, 30) @ vectors)
