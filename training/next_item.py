"""Learning to predict the next item at every place of a history: what the sequential models have in common.

A sequential model is a trunk, `trunk(vectors (B, L, D), place (B, L)) -> (B, L, D)`, between one table of item vectors
that its input and its output share. `place` says how many earlier events of the same user stand in the row, and with
that all that may be looked at: row i sees column j where 0 <= i - j <= place[i] (`visible_ages`).

Training reads a stream, all users' events one after the other in random order, cut into rows of equal length: no place
is padding and users of all lengths meet in a batch. A user who lies across a cut begins anew behind it.

An item's score is the cosine of user and item over a temperature, plus the item's own bias. The loss is the softmax
over all items, estimated where there are many (training/sampled_softmax.py). The chance of an epoch comes from the seed
and the epoch's number alone, so a killed training goes on from its checkpoint to the same weights.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.errors import CheckFailed
from training.checkpoint import Checkpoint
from training.dataset import TrainingData
from training.encoders import DotProductModel
from training.model import (
    Between,
    ModelConfig,
    OneOf,
    Workplace,
    check_finite,
    popularity,
    recency_shift,
    share_done,
)
from training.row_adam import RowAdam
from training.sampled_softmax import Sample, SampledSoftmax

SEED_STRIDE = 1_000_003
"""Between the seeds of members, so that neighbouring seeds of a model share none."""
OPERATIONS_A_SECOND = 35e9
"""Of one core with AVX-512: 36e9 to 60e9 were measured, the less the more others used the machine."""
log = logging.getLogger(__name__)


class NextItemConfig(ModelConfig):
    """What every sequential model's training needs to know; each model's Config says what it chose and why."""

    embedding_size: int = 64
    max_history: int = 50
    """The user's latest items that the model reads; also the length of a row in training."""
    heads: int = 2
    layers: int = 1
    dropout: float = 0.3
    """Of what each block adds."""
    input_dropout: float = 0.2
    """Of the item vectors that come in."""
    temperature: float = 0.06
    negatives: int = 1000
    """Items drawn evenly a step as possible answers beside the batch's own; as many as there are items or more: all."""
    epochs: int = 15
    min_steps: int = 100
    batch_size: int = 20
    """In rows of `max_history` places."""
    learning_rate: float = 0.006
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises to its full height; from there it falls as a cosine."""
    reg: float = 0.0
    members: int = 1
    """Networks that are trained apart, from different seeds, and whose scores are averaged (see `Members`)."""


SHORT = {"input_dropout": 0.3, "dropout": 0.4}
TRIALS: tuple[dict, ...] = (
    {}, {"max_history": 200, "batch_size": 8, "layers": 2, "dropout": 0.2, "learning_rate": 0.003}, {"epochs": 30},
)  # fmt: skip
"""For the benchmark: what histories of any length want, what long ones do, and more of the first."""
TRIALS_OF_SHORT = (SHORT,)
"""What short ones want (docs/results/sequence.md): time is worth more in further networks than in further trials."""


SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "max_history": OneOf((20, 50, 100, 200)),
    "layers": Between(1, 3),
    "dropout": Between(0.0, 0.6),
    "input_dropout": Between(0.0, 0.5),
    "temperature": Between(0.03, 0.15, log=True),
    "learning_rate": Between(0.001, 0.02, log=True),
    "epochs": Between(5, 40, log=True),
}


class Dropout(nn.Module):
    """Dropout to the nearest 256th, one random byte a value: a sixth of the time of PyTorch's own on a processor."""

    def __init__(self, share: float):
        super().__init__()
        self.dropped = round(256 * share)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.long).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped
        return values * (kept * (256 / (256 - self.dropped)))


class Direction(torch.autograd.Function):
    """`F.normalize` times a scale, in a third of the passes over the values, forth and back. (…, D)"""

    @staticmethod
    def forward(ctx, values: Tensor, scale: float) -> Tensor:
        factor = scale / torch.linalg.vector_norm(values, dim=-1, keepdim=True).clamp_(min=1e-12)  # (…, 1)
        found = values * factor
        ctx.scale = scale
        ctx.save_for_backward(found, factor)
        return found

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        found, factor = ctx.saved_tensors
        along = (gradient * found).sum(-1, keepdim=True).div_(-(ctx.scale**2))  # (…, 1)
        return torch.addcmul(gradient, found, along).mul_(factor), None


def estimate_seconds(data: TrainingData, config: NextItemConfig) -> float:
    """Return the processor seconds that a fit takes: its products of matrices, at the speed of one core of 2023."""
    places = len(data.items) - len(np.unique(data.users))
    steps = max(places // (config.batch_size * config.max_history), 1)
    candidates = min(data.n_items, config.negatives + places // steps)
    size = config.embedding_size
    products = config.layers * (6 * size**2 + 2 * config.max_history * size) + size * candidates
    epochs = config.members * max(config.epochs, config.min_steps / steps)
    return places * epochs * 6 * products / OPERATIONS_A_SECOND


def visible_ages(place: Tensor) -> tuple[Tensor, Tensor]:
    """Return how old each column is for each row, (L, L), and whether the row may look at it, bool (B, L, L)."""
    at = torch.arange(place.shape[1], device=place.device)
    age = at[:, None] - at[None]
    return age, (age >= 0) & (age <= place[:, :, None])


class Stream:
    """The users' events as rows to train on. U users with two events or more, n events.

    Raises:
        CheckFailed: there is no such user.
    """

    def __init__(self, data: TrainingData):
        sequences = [rows for rows in data.sequences() if len(rows) > 1]
        if not sequences:
            raise CheckFailed("training sequences", 0, "No user has two events before the cut: land more history")
        self.lengths = np.array([len(rows) for rows in sequences])  # (U,)
        self.starts = np.cumsum(self.lengths) - self.lengths  # (U,)
        self.items = data.items[np.concatenate(sequences)].astype(np.int64)  # (n,)
        self.places = len(self.items) - len(sequences)

    def rows(self, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return items, their places and the items that follow them, each (R, length), users in random order.

        Each event but a user's last is an input, all of them but what is left after the last full row.
        """
        order = rng.permutation(len(self.lengths))
        lengths = self.lengths[order]
        begins = np.cumsum(lengths) - lengths  # in the stream
        place = np.arange(lengths.sum()) - np.repeat(begins, lengths)  # (n,)
        stream = self.items[np.repeat(self.starts[order], lengths) + place]  # (n,)
        inputs = np.flatnonzero(place < np.repeat(lengths, lengths) - 1)
        length = min(length, len(inputs))
        inputs = inputs[: len(inputs) // length * length]
        place = np.minimum(place[inputs], np.arange(len(inputs)) % length)  # a row sees nothing of the row before
        return tuple(values.reshape(-1, length) for values in (stream[inputs], place, stream[inputs + 1]))


class Network(nn.Module):
    """The items' table and bias around a trunk."""

    def __init__(self, n_items: int, trunk: nn.Module, config: NextItemConfig):
        super().__init__()
        self.item = nn.Embedding(n_items, config.embedding_size)
        self.bias = nn.Embedding(n_items, 1)
        self.trunk, self.scale = trunk, config.temperature**-0.5
        nn.init.normal_(self.item.weight, std=0.02)
        nn.init.zeros_(self.bias.weight)
        for layer in trunk.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def users(self, items: Tensor, place: Tensor) -> Tensor:
        """Return the user's vector after each place of rows of items. (B, L) → (B, L, D)"""
        return self.direction(self.trunk(self.item(items), place))

    def vectors(self, items: Tensor) -> Tensor:
        """Return what a user's vector is multiplied with. (N,) → (N, D)"""
        return self.direction(self.item(items))

    def direction(self, values: Tensor) -> Tensor:
        """Return vectors of one length, so that two of them multiply to their cosine over the temperature. (…, D)"""
        return Direction.apply(values, self.scale) if self.training else F.normalize(values, dim=-1) * self.scale


class Members(nn.Module):
    """Several networks as one: the mean of their scores is one product of their vectors, laid end to end.

    Networks that differ in nothing but chance err differently on what they have seen little of: Lakshminarayanan,
    Pritzel, Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles".
    """

    def __init__(self, networks: list[Network]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.share = len(networks) ** -0.5

    def users(self, items: Tensor, place: Tensor) -> Tensor:
        """Return the user's vectors after each place. (B, L) → (B, L, M·D)"""
        return torch.cat([network.users(items, place) for network in self.networks], -1) * self.share

    def vectors(self, items: Tensor) -> Tensor:
        """Return what they are multiplied with. (N,) → (N, M·D)"""
        return torch.cat([network.vectors(items) for network in self.networks], -1) * self.share

    def biases(self) -> Tensor:
        """Return each item's mean bias. (I,)"""
        return torch.stack([network.bias.weight[:, 0] for network in self.networks]).mean(0)


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the user's vector."""

    def __init__(self, network: Members):
        super().__init__()
        self.network = network

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        place = (mask.cumsum(1) - 1).clamp(min=0).long()  # (B, L)
        return self.network.users(history, place)[:, -1]  # (B, D)


class NextItemModel(DotProductModel):
    """A trained sequential model."""

    def __init__(self, network: Members, data: TrainingData, config: NextItemConfig):
        self.network, self.max_history = network, config.max_history
        self.encoder = Encoder(network).eval()
        self.counts = popularity(data)  # (I,)
        with torch.no_grad():
            self.vectors = network.vectors(torch.arange(data.n_items))  # (I, D)
            self.bias = network.biases() + torch.from_numpy(recency_shift(data))  # (I,)

    def save_native(self, folder: Path) -> None:
        torch.save(self.network.state_dict(), folder / "network.pt")


def fit(
    name: str,
    trunk: Callable[[], nn.Module],
    data: TrainingData,
    config: NextItemConfig,
    seed: int,
    workplace: Workplace,
) -> NextItemModel:
    """Train a trunk and its items. `trunk` makes a new one.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    torch.set_num_threads(workplace.threads)
    networks, checkpoints = [], []
    for member in range(config.members):
        own = workplace.part(1 / (config.members - member))
        with torch.random.fork_rng():
            torch.manual_seed(seed + member * SEED_STRIDE)
            networks.append(Network(data.n_items, trunk(), config))
            checkpoints.append(train(name, networks[-1], data, config, seed + member * SEED_STRIDE, own))
    for checkpoint in checkpoints:  # a kill costs no member that was done
        checkpoint.remove()
    return NextItemModel(Members(networks), data, config)


def train(
    name: str, network: Network, data: TrainingData, config: NextItemConfig, seed: int, workplace: Workplace
) -> Checkpoint:
    """Train for the configured epochs, or for as long as the workplace allows, whichever ends first. What is returned
    still holds the end where the network has fellows, and is for the caller to remove."""
    stream = Stream(data)
    share = np.bincount(stream.items, minlength=data.n_items) / len(stream.items)  # (I,)
    steps = max(1, stream.places // (config.batch_size * config.max_history))  # an epoch's
    epochs = max(config.epochs, math.ceil(config.min_steps / steps))
    optimiser = Optimiser(network, config)
    checkpoint = Checkpoint.of(name, data, config, seed, workplace)
    for epoch in checkpoint.epochs(network, optimiser, epochs, is_kept=config.members > 1):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        rows = stream.rows(config.max_history, rng)
        losses = []
        for batch in np.array_split(np.arange(len(rows[0])), min(steps, len(rows[0]))):
            done = share_done((epoch + len(losses) / steps) / epochs, workplace)
            if done >= 1:
                log.warning("%s stops in epoch %d of %d: its time is over", name, epoch + 1, epochs)
                checkpoint.remove()
                optimiser.items.settle()
                return checkpoint
            optimiser.zero_grad()
            loss = batch_loss(network, optimiser, *(values[batch] for values in rows), share, config.negatives, rng)
            losses.append(loss.item())
            check_finite(losses[-1], name, epoch * steps + len(losses))
            loss.backward()
            optimiser.step(config.learning_rate * rate(done, config.warmup))
        log.info("%s epoch %d of %d: loss %.3f", name, epoch + 1, epochs, np.mean(losses))
    optimiser.items.settle()
    return checkpoint


class Optimiser:
    """AdamW, of the items row by row."""

    def __init__(self, network: Network, config: NextItemConfig):
        self.items = RowAdam([network.item.weight, network.bias.weight], weight_decay=config.reg)
        self.trunk = torch.optim.AdamW(
            network.trunk.parameters(), lr=0.0, betas=self.items.betas, weight_decay=config.reg, fused=True
        )

    def zero_grad(self) -> None:
        self.trunk.zero_grad()

    def step(self, learning_rate: float) -> None:
        self.trunk.param_groups[0]["lr"] = learning_rate
        self.trunk.step()
        self.items.step(learning_rate)

    def state_dict(self) -> dict[str, Any]:
        return {"items": self.items.state_dict(), "trunk": self.trunk.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.items.load_state_dict(state["items"])
        self.trunk.load_state_dict(state["trunk"])


def rate(done: float, warmup: float) -> float:
    """Return the share of the full learning rate when this share of the training is done: a rise, then a cosine."""
    return min(1.0, (done + 1e-3) / (warmup + 1e-3)) * max(0.01, (1 + math.cos(math.pi * done)) / 2)


def batch_loss(
    network: Network,
    optimiser: Optimiser,
    items: np.ndarray,
    places: np.ndarray,
    targets: np.ndarray,
    share: np.ndarray,
    negatives: int,
    rng: np.random.Generator,
) -> Tensor:
    """Return the loss of a batch of rows, each (B, L)."""
    sample = Sample.draw(targets.reshape(-1), share, negatives, rng)
    rows, at = sample.followed_by(items, len(share))
    table, bias = optimiser.items.take(rows)  # (n, D), (n, 1), the sample's first
    users = network.direction(network.trunk(F.embedding(at, table), torch.from_numpy(places))).flatten(0, 1)  # (P, D)
    count = len(sample.items)
    vectors = network.direction(table[:count])  # (N, D)
    return SampledSoftmax.apply(users, vectors, bias[:count, 0], sample.wanted, sample.log_probability)
