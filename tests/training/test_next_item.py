"""What the sequential models share: rows of a stream, the sampled softmax, what a place may see."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import checkerboard as world
from training.model import Workplace
from training.models import hstu, sasrec
from training.next_item import Direction, Dropout, Encoder, Network, Stream, rate, train
from training.sampled_softmax import Sample, SampledSoftmax

MODELS = pytest.mark.parametrize("module", [sasrec, hstu], ids=["sasrec", "hstu"])
TINY = {"embedding_size": 8, "max_history": 6, "epochs": 1, "min_steps": 3}


def data_of(lengths: list[int]):
    """Users of these many events; event number e, over all users, is of item e."""
    n = sum(lengths)
    users = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    catalogue = world.catalogue().model_copy(update={"item_id": [f"{i:04d}" for i in range(n)]})
    return replace(world.training_data(), users=users, items=np.arange(n, dtype=np.int32), catalogue=catalogue)


def untrained(module, **changes) -> Network:
    """A network whose biases and positions are not those of its beginning, so that their places matter."""
    torch.manual_seed(1)
    config = module.Config(**{**TINY, **changes})
    network = Network(30, module.Trunk(config), config).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(torch.randn_like(weights) / 2)
    return network


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 7), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_row_is_a_stretch_of_the_stream(lengths, length, seed):
    lengths = [*lengths, 2]  # one user at least has a next event
    data = data_of(lengths)
    inputs, places, targets = Stream(data).rows(length, np.random.default_rng(seed))
    possible = sum(lengths) - len(lengths)
    assert inputs.shape == places.shape == targets.shape
    assert inputs.size == possible // min(length, possible) * min(length, possible)
    assert len(np.unique(inputs)) == inputs.size, "an event is an input once"
    np.testing.assert_array_equal(targets, inputs + 1)  # the user's next event
    np.testing.assert_array_equal(data.users[targets], data.users[inputs])
    for row, place in zip(inputs, places, strict=True):
        for at, back in enumerate(place):
            np.testing.assert_array_equal(row[at - back : at + 1], np.arange(row[at] - back, row[at] + 1))
            same_user_before = at > back and data.users[row[at - back - 1]] == data.users[row[at]]
            assert not same_user_before, "what a place sees begins with its user or its row"


def test_every_epoch_has_users_in_another_order():
    stream = Stream(data_of([4, 5, 6, 7, 8]))
    first, again, other = (stream.rows(5, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@MODELS
def test_a_place_sees_its_own_user_and_the_past_only(module):
    network = untrained(module)
    items, place = torch.arange(6)[None], torch.tensor([[0, 1, 2, 0, 1, 2]])  # two users in a row
    before = network.users(items, place)
    changed = items.clone()
    changed[0, 2] = 29
    moved = (network.users(changed, place) - before).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, False, True, False, False, False]
    changed = items.clone()
    changed[0, 3] = 29
    moved = (network.users(changed, place) - before).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, False, False, True, True, True]


@MODELS
def test_a_user_in_the_stream_is_the_user_who_asks_alone(module):
    network = untrained(module)
    packed = network.users(torch.tensor([[7, 8, 1, 2, 3, 4]]), torch.tensor([[0, 1, 0, 1, 2, 3]]))
    asked = Encoder(network)(torch.tensor([[0, 0, 1, 2, 3]]), torch.tensor([[0.0, 0, 1, 1, 1]]))
    torch.testing.assert_close(packed[:, 4], asked)


@MODELS
def test_the_order_of_a_history_matters(module):
    network = untrained(module)
    forth, back = (Encoder(network)(torch.tensor([items]), torch.ones(1, 3)) for items in ([1, 2, 3], [2, 1, 3]))
    assert (forth - back).abs().max() > 1e-3


@pytest.mark.parametrize("length", [1.0, 15.0])  # of the users' vectors: exponentials as they are, and far too large
def test_among_all_items_the_loss_is_the_cross_entropy(length):
    torch.manual_seed(2)
    users, vectors = (length * torch.randn(300, 5)).requires_grad_(), torch.randn(11, 5, requires_grad=True)
    bias = torch.randn(11, requires_grad=True)
    targets = np.random.default_rng(2).integers(0, 11, 300)
    sample = Sample.draw(targets, np.full(11, 1 / 11), 11, np.random.default_rng(1))
    ours = SampledSoftmax.apply(users, vectors, bias, sample.wanted, sample.log_probability)
    theirs = F.cross_entropy(users @ vectors.T + bias, torch.from_numpy(targets))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    inputs = (users, vectors, bias)
    for mine, other in zip(torch.autograd.grad(3 * ours, inputs), torch.autograd.grad(3 * theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_a_step_looks_its_items_up_once():
    items, targets = np.array([[7, 3, 3], [9, 7, 1]]), np.array([[3, 3, 5], [7, 1, 2]])
    sample = Sample.draw(targets.reshape(-1), np.full(30, 1 / 30), 4, np.random.default_rng(1))
    rows, at = sample.followed_by(items, 30)
    assert len(rows) == len(rows.unique()) > len(sample.items), "item 9 is no target"
    assert torch.equal(rows[: len(sample.items)], sample.items)
    np.testing.assert_array_equal(rows[at], items)


def test_a_direction_is_a_normalised_vector_forth_and_back():
    torch.manual_seed(6)
    values, weights = torch.randn(4, 3, 5, requires_grad=True), torch.randn(4, 3, 5)
    ours, theirs = Direction.apply(values, 3.0), F.normalize(values, dim=-1) * 3
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad((found.sin() * weights).sum(), values)[0] for found in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert Direction.apply(torch.zeros(1, 5), 3.0).tolist() == [[0.0] * 5]


def test_hstu_learns_with_the_bias_that_it_answers_with():
    config = hstu.Config(dropout=0.0, input_dropout=0.0, max_history=6, embedding_size=8)
    trunk = hstu.Trunk(config)
    torch.manual_seed(5)
    torch.nn.init.normal_(trunk.blocks[0].by_age.weight)
    vectors, place = torch.randn(2, 5, 8), torch.tensor([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]])
    torch.testing.assert_close(trunk.train()(vectors, place), trunk.eval()(vectors, place))


def test_an_item_in_the_sample_stands_for_those_that_are_not():
    """Over many draws the estimated sum of exponentials is that of all items."""
    rng, n_items = np.random.default_rng(3), 40
    share = rng.dirichlet(np.full(n_items, 0.3))
    weights = rng.gamma(2.0, size=n_items)  # exp(logits)
    estimates = []
    for _ in range(4000):
        sample = Sample.draw(rng.choice(n_items, 10, p=share), share, 8, rng)
        estimates.append((weights[sample.items] / np.exp(sample.log_probability.numpy())).sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.std(estimates) > 0
    assert abs(np.mean(estimates) - weights.sum()) < 4 * error


def test_a_target_counts_for_itself_and_as_often_as_it_stands_for_others():
    logits, log_probability = torch.tensor([0.3, -0.2, 0.9]), torch.tensor([-0.1, -1.5, -0.7])
    ours = SampledSoftmax.apply(torch.ones(1, 1), logits[:, None], torch.zeros(3), torch.tensor([1]), log_probability)
    others = (logits - log_probability).exp()[[0, 2]].sum()
    torch.testing.assert_close(ours, (logits[1].exp() + others).log() - logits[1])


def test_dropout_keeps_the_mean_and_is_off_when_the_model_answers():
    dropout, values = Dropout(0.25), torch.ones(1000, 101)
    torch.manual_seed(4)
    dropped = dropout(values)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert (dropped == 0).float().mean(0).std() < 0.05  # no place is dropped more often than others
    assert dropout.eval()(values) is values


def test_the_learning_rate_rises_and_falls():
    rates = [rate(done, 0.1) for done in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.02
    assert np.argmax(rates) == 10
    assert (np.diff(rates[10:]) <= 0).all()
    assert rates[-1] == 0.01


def test_what_a_fit_is_expected_to_take_grows_with_its_work():
    data = data_of([30] * 40)
    base = {"epochs": 10, "min_steps": 1, "batch_size": 1}
    seconds = [
        sasrec.estimate_seconds(data, sasrec.Config(**{**base, **more}))
        for more in ({}, {"epochs": 20}, {"layers": 2}, {"negatives": 10}, {"embedding_size": 128})
    ]
    assert seconds[1] == pytest.approx(2 * seconds[0])
    assert seconds[3] < seconds[0] < min(seconds[2], seconds[4])


def test_the_benchmarks_trials_are_settings():
    assert sasrec.TRIALS[0] == {}
    assert len({sasrec.Config(**trial).model_dump_json() for trial in sasrec.TRIALS}) == len(sasrec.TRIALS) > 1


def test_a_training_ends_with_its_time(tmp_path, caplog):
    data, config = world.training_data(), sasrec.Config(**{**TINY, "epochs": 10**6})
    network = Network(data.n_items, sasrec.Trunk(config), config)
    train("sasrec", network, data, config, 1, Workplace(1, tmp_path, seconds=0.2))
    assert "its time is over" in caplog.text
    assert not list(tmp_path.rglob("*.pt"))
