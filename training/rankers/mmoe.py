"""A ranker of several tasks in PyTorch: what is clicked, and what is bought, from experts that the tasks share.

Ma, Zhao, Yi, Chen, Hong, Chi 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts": every expert reads the whole input, and each task has a gate, a softmax over the experts that
depends on the input too, and a tower of its own. Tasks that agree share experts, tasks that do not have theirs apart.

Labels are (n, T), NaN where a task does not say, which costs nothing; with labels (n,) it is a ranker of one task.
Serving wants one number an item: the first task's probability times that of each other to the power `other_weight`
(Zhao et al. 2019, "Recommending What Video to Watch Next", combine their tasks so).
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.errors import RecsysError
from training.encoders import graph_of
from training.model import ModelConfig, check_finite
from training.ranker import LIMIT, Examples, Scaling, known, log_loss, platt

FRAMEWORK = "pytorch"
SCORED_AT_ONCE = 65_536
log = logging.getLogger(__name__)


class Config(ModelConfig):
    embedding_size: int = 16
    """Of a category's vector."""
    experts: int = 4
    layers: tuple[int, ...] = (64, 32)
    """Widths of an expert; the last is what the towers read."""
    tower: int = 16
    dropout: float = 0.1
    epochs: int = 12
    """At most."""
    patience: int = 1
    batch_size: int = 2048
    learning_rate: float = 0.003
    vector_reg: float = 1e-5
    other_weight: float = 0.5


class Network(nn.Module):
    """Raw numbers (n, F) and category codes → logits (n, T). E experts, H wide at their end."""

    def __init__(self, scaling: Scaling, sizes: dict[str, int], tasks: int, config: Config):
        super().__init__()
        for name in ("is_count", "mean", "scale"):
            self.register_buffer(name, torch.tensor(getattr(scaling, name)).float())  # (F,)
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(size, config.embedding_size, padding_idx=0) for name, size in sizes.items()}
        )
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.01)
        width = len(scaling.mean) + len(sizes) * config.embedding_size
        self.experts = nn.ModuleList(self._expert(width, config) for _ in range(config.experts))
        self.gates = nn.ModuleList(nn.Linear(width, config.experts) for _ in range(tasks))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(config.layers[-1], config.tower), nn.ReLU(), nn.Linear(config.tower, 1))
            for _ in range(tasks)
        )
        self.register_buffer("slope", torch.ones(tasks))
        self.register_buffer("offset", torch.zeros(tasks))

    @staticmethod
    def _expert(width: int, config: Config) -> nn.Sequential:
        parts: list[nn.Module] = []
        for wide, narrow in zip((width, *config.layers), config.layers, strict=False):
            parts += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(config.dropout)]
        return nn.Sequential(*parts)

    def inputs(self, numbers: Tensor, codes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the experts' input, (n, X), and the sum of squares of the categories' vectors in it."""
        unknown = numbers.isnan()
        read = torch.where(self.is_count > 0, numbers.clamp(min=0).log1p(), numbers)
        scaled = ((read - self.mean) / self.scale).masked_fill(unknown, 0.0).clamp(-LIMIT, LIMIT)
        parts, squares = [scaled], numbers.new_zeros(())
        for name, table in self.tables.items():
            vectors = table(codes[name])  # (n, D) or (n, M, D)
            if vectors.dim() == 3:
                vectors = vectors.sum(1) / (codes[name] > 0).sum(1, keepdim=True).clamp(min=1)
            squares = squares + vectors.square().sum()
            parts.append(vectors)
        return torch.cat(parts, 1), squares

    def logits(self, given: Tensor) -> Tensor:
        """(n, X) → (n, T)"""
        seen = torch.stack([expert(given) for expert in self.experts], 1)  # (n, E, H)
        said = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            mixed = (gate(given).softmax(-1)[..., None] * seen).sum(1)  # (n, H)
            said.append(tower(mixed))
        return torch.cat(said, 1)

    def probabilities(self, given: Tensor) -> Tensor:
        return (self.logits(given) * self.slope + self.offset).sigmoid()


class Served(nn.Module):
    """What ranker.onnx does: user_features (1, U) and item_features (n, I) → scores (n,)."""

    def __init__(self, network: Network, other_weight: float):
        super().__init__()
        self.network, self.other_weight = network, other_weight

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        numbers = torch.cat([user_features.expand(item_features.shape[0], -1), item_features], 1)
        probability = self.network.probabilities(self.network.inputs(numbers, {})[0])  # (n, T)
        return probability[:, 0] * (probability[:, 1:] ** self.other_weight).prod(1)


class MMoE:
    """The trained ranker."""

    def __init__(self, network: Network, is_one: bool, config: Config):
        self.network, self.is_one, self.config = network.eval(), is_one, config

    @torch.no_grad()
    def _said(self, examples: Examples, function: str) -> np.ndarray:
        parts = []
        for start in range(0, len(examples), SCORED_AT_ONCE):
            rows = slice(start, start + SCORED_AT_ONCE)
            given, _ = self.network.inputs(*tensors(examples, rows, self.network))
            parts.append(getattr(self.network, function)(given).numpy())
        return np.concatenate(parts)  # (n, T)

    def predict(self, examples: Examples) -> np.ndarray:
        said = self._said(examples, "probabilities")
        return said[:, 0] if self.is_one else said

    def calibrate(self, validation: Examples) -> None:
        """Stretch and move each task's logits so that they say the validation's shares (Platt 1999)."""
        labels, said = as_tasks(validation.labels), self._said(validation, "logits")
        for task in range(labels.shape[1]):
            is_known = np.isfinite(labels[:, task])
            if is_known.any():
                slope, offset = platt(said[is_known, task], labels[is_known, task])
                self.network.slope[task], self.network.offset[task] = slope, offset

    def to_onnx(self, n_user: int) -> bytes:
        if self.network.tables:
            raise RecsysError(
                "ranker", f"reads {', '.join(self.network.tables)}", "Serving has numbers only; train on those"
            )
        n_item = len(self.network.mean) - n_user
        examples = {"user_features": torch.zeros(1, n_user), "item_features": torch.zeros(3, n_item)}
        served = Served(self.network, self.config.other_weight).eval()
        return graph_of(served, examples, "scores", ({}, {0: torch.export.Dim("n")}))


def as_tasks(labels: np.ndarray) -> np.ndarray:
    """Return labels as (n, T)."""
    return labels[:, None] if labels.ndim == 1 else labels


def tensors(examples: Examples, rows, network: Network) -> tuple[Tensor, dict[str, Tensor]]:
    codes = {
        name: torch.from_numpy(known(examples.categories[name][rows], table.num_embeddings)).long()
        for name, table in network.tables.items()
    }
    return torch.from_numpy(examples.numbers[rows]).float(), codes


def mean_loss(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the tasks' log losses added up, of the examples that each knows."""
    is_known = np.isfinite(labels)
    return sum(log_loss(predicted[at, task], labels[at, task]) for task, at in enumerate(is_known.T) if at.any())


def fit(train: Examples, validation: Examples, config: Config, seed: int, threads: int) -> MMoE:
    """Train until the validation's log loss, all tasks together, no longer falls; keep the weights of then.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    torch.set_num_threads(threads)
    labels, judged = as_tasks(train.labels), as_tasks(validation.labels)
    sizes = {
        name: 1 + max(int(codes.max()), int(validation.categories[name].max()))
        for name, codes in train.categories.items()
    }
    rng, best, kept, waited, done = np.random.default_rng(seed), np.inf, {}, 0, 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(Scaling(train.numbers), sizes, labels.shape[1], config)
        ranker = MMoE(network, train.labels.ndim == 1, config)
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        for epoch in range(config.epochs):
            network.train()
            optimiser.param_groups[0]["lr"] = config.learning_rate * (1 - epoch / config.epochs)
            order = rng.permutation(len(train))
            for rows in np.array_split(order, max(1, len(order) // config.batch_size)):
                given, squares = network.inputs(*tensors(train, rows, network))
                wanted = torch.from_numpy(labels[rows]).float()  # (b, T)
                is_known = ~wanted.isnan()
                losses = F.binary_cross_entropy_with_logits(
                    network.logits(given), wanted.nan_to_num(), is_known.float(), reduction="none"
                )
                loss = (losses.sum(0) / is_known.sum(0).clamp(min=1)).sum()
                done += 1
                check_finite(loss.item(), "the ranker", done)
                optimiser.zero_grad()
                (loss + config.vector_reg * squares / len(rows)).backward()
                optimiser.step()
            network.eval()
            found = mean_loss(ranker._said(validation, "probabilities"), judged)
            log.info("mmoe epoch %d: validation %.4f", epoch + 1, found)
            if found < best:
                best, waited = found, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            else:
                waited += 1
                if waited > config.patience:
                    break
    network.load_state_dict(kept)
    ranker.calibrate(validation)
    return ranker
