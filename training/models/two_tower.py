"""Two-tower retrieval in PyTorch: a user tower over the attended history, an item tower over id and categories.

Both towers meet in a dot product, so that a user is one vector and the catalogue one matrix. Training predicts at every
place of a history one of the next events, by a softmax over the batch's own targets with the logQ correction (Yi et al.
2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"). The user tower is one causal
self-attention block with a learned bias by age (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation",
without its absolute positions): the users of tomorrow are strangers, so no user has an embedding.

Chosen on the validation part of MovieLens 1M (a second temporal split inside train), ndcg@10, popularity alone .179,
for quality by the second: one epoch at learning rate .006 .267, at .012 .278, in batches of 10 at .006 .278; two epochs
at .012 .296 (the choice; .292 since padding is left out, in 35 processor seconds instead of 44), in windows of 50 and
batches of 40 at .006 .290. Before the bias began at the logarithm of
popularity: two epochs at .006 .292, three .301; horizon 1 .289, 5 .290, 15 .294 against .301 at 5 with windows of 100.
Where data is small, steps overfit: on latest-small, popularity alone .219, at .006 100 steps .190, 150 .199, 300 .178.
"""

import logging
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.bundle import Catalogue
from training.dataset import TrainingData
from training.encoders import DotProductModel
from training.model import (
    Between,
    ModelConfig,
    OneOf,
    Workplace,
    as_read,
    batches,
    check_finite,
    filled,
    popularity,
    recency_shift,
    share_done,
    windows,
)

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
MAX_CATEGORIES = 8
log = logging.getLogger(__name__)
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "horizon": Between(1, 20, log=True),
    "dropout": Between(0.0, 0.5),
    "learning_rate": Between(0.002, 0.03, log=True),
    "epochs": Between(1, 8, log=True),
}


class Config(ModelConfig):
    embedding_size: int = 64
    heads: int = 2
    max_history: int = 100
    horizon: int = 5
    dropout: float = 0.2
    learned_share: float = 0.5
    epochs: int = 2
    min_steps: int = 100
    batch_size: int = 12
    """In full windows (training.model.batches)."""
    learning_rate: float = 0.012
    reg: float = 0.0
    correct_log_q: bool = True
    """Without it what is popular is a negative as often as it is popular, and is learned to be nobody's."""


class ItemTower(nn.Module):
    """An item is its own vector plus the mean of its categories' vectors."""

    def __init__(self, catalogue: Catalogue, size: int):
        super().__init__()
        names = sorted({name for listed in catalogue.categories for name in listed})
        code = {name: i + 1 for i, name in enumerate(names)}  # 0 pads
        table = torch.zeros(len(catalogue.item_id), MAX_CATEGORIES, dtype=torch.long)
        for i, listed in enumerate(catalogue.categories):
            codes = [code[name] for name in listed[:MAX_CATEGORIES]]
            table[i, : len(codes)] = torch.tensor(codes, dtype=torch.long)
        self.register_buffer("categories", table)  # (I, C)
        self.item = nn.Embedding(len(catalogue.item_id), size)
        self.category = nn.Embedding(len(names) + 1, size, padding_idx=0)
        self.bias = nn.Embedding(len(catalogue.item_id), 1)
        nn.init.normal_(self.item.weight, std=size**-0.5)
        nn.init.zeros_(self.category.weight)
        nn.init.zeros_(self.bias.weight)

    def categories_of(self, items: Tensor) -> Tensor:
        codes = self.categories[items]  # (..., C)
        count = (codes > 0).sum(-1, keepdim=True).clamp(min=1)
        return self.category(codes).sum(-2) / count  # (..., D)

    def forward(self, items: Tensor) -> Tensor:
        return self.item(items) + self.categories_of(items)  # (..., D)


class UserTower(nn.Module):
    """Item vectors of a history and its mask → the user's vector after each place."""

    def __init__(self, config: Config):
        super().__init__()
        size = config.embedding_size
        self.heads, self.max_history = config.heads, config.max_history
        self.before_attention, self.before_mix, self.last = (nn.LayerNorm(size) for _ in range(3))
        self.project, self.merge = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.age = nn.Embedding(config.max_history, config.heads)
        nn.init.zeros_(self.age.weight)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        _, length, size = vectors.shape
        hidden = vectors * self.dropout(mask)[..., None]  # (B, L, D): drops whole items
        project = self.project(self.before_attention(hidden))  # (B, L, 3D)
        query, key, value = project.unflatten(-1, (3, self.heads, size // self.heads)).permute(2, 0, 3, 1, 4)
        place = torch.arange(length, device=mask.device)
        age = place[:, None] - place[None]  # (L, L): rows look at columns
        by_age = self.age(age.clamp(0, self.max_history - 1)).permute(2, 0, 1)  # (H, L, L)
        by_age = by_age.masked_fill(age < 0, -1e9)
        logits = (query / math.sqrt(size // self.heads)) @ key.transpose(-1, -2) + by_age  # (B, H, L, L)
        attention = (logits + (mask[:, None, None, :] - 1) * 1e9).softmax(-1)  # no place that pads is visible
        attended = (attention @ value).transpose(1, 2).flatten(2)  # (B, L, D)
        hidden = hidden + self.merge(attended)
        hidden = hidden + self.narrow(F.gelu(self.widen(self.before_mix(hidden))))
        return self.last(hidden)  # (B, L, D)


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the user's vector."""

    def __init__(self, item_vectors: Tensor, user_tower: UserTower):
        super().__init__()
        self.items = nn.Embedding.from_pretrained(item_vectors)
        self.user_tower = user_tower

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        return self.user_tower(self.items(history), mask)[:, -1]  # (B, D)


class TwoTower(DotProductModel):
    """The trained towers."""

    def __init__(self, items: ItemTower, users: UserTower, data: TrainingData, config: Config):
        self.items, self.users, self.max_history = items.eval(), users.eval(), config.max_history
        self.counts = popularity(data)  # (I,)
        with torch.no_grad():
            everything = torch.arange(data.n_items)
            trained = torch.from_numpy(np.bincount(data.items, minlength=data.n_items) > 0)
            # An item without a training event is known by its categories alone, and as little used as the least used.
            self.vectors = torch.where(trained[:, None], items(everything), items.categories_of(everything))  # (I, D)
            bias = items.bias.weight[:, 0]
            bias = torch.where(trained, bias, bias[trained].min())
            self.bias = bias + torch.from_numpy(recency_shift(data))  # (I,)
        self.encoder = Encoder(self.vectors, users).eval()

    def save_native(self, folder: Path) -> None:
        torch.save({"items": self.items.state_dict(), "users": self.users.state_dict()}, folder / "towers.pt")


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> TwoTower:
    """Train both towers together.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    torch.set_num_threads(workplace.threads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        items, users = ItemTower(data.catalogue, config.embedding_size), UserTower(config)
        train(items, users, data, config, np.random.default_rng(seed), workplace)
    return TwoTower(items, users, data, config)


def train(
    items: ItemTower,
    users: UserTower,
    data: TrainingData,
    config: Config,
    rng: np.random.Generator,
    workplace: Workplace,
) -> None:
    """Train for the configured epochs, or for as long as the workplace allows, whichever ends first."""
    frequency = np.bincount(data.items, minlength=data.n_items) / len(data.items)
    log_q = torch.from_numpy(np.log(np.maximum(frequency, 1e-12)) * config.correct_log_q).float()  # (I,)
    with torch.no_grad():  # the logQ correction takes popularity off, so that it is the bias that training starts from
        items.bias.weight[:, 0] = (log_q - log_q[torch.from_numpy(frequency > 0)].min()).clamp(min=0)
    codes = torch.from_numpy(data.items.astype(np.int64))
    sequences = data.sequences()
    per_epoch = len(batches(windows(sequences, config.max_history, rng)[0], config.batch_size, rng))
    epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
    optimiser = torch.optim.AdamW(
        [*items.parameters(), *users.parameters()], lr=config.learning_rate, weight_decay=config.reg, fused=True
    )
    step = 0
    for epoch in range(epochs):
        read = as_read(sequences, data.is_ordered, rng)
        inputs, targets = windows(read, config.max_history, rng, config.horizon)
        losses = []
        for batch in batches(inputs, config.batch_size, rng):
            done = share_done(step / (per_epoch * epochs), workplace)
            if done >= 1:
                break
            rows, following = map(torch.from_numpy, filled(inputs, targets, batch))  # (B, L)
            mask = rows >= 0
            learned = mask & torch.from_numpy(rng.random(mask.shape) < config.learned_share)  # P places
            learned[:, -1] = True  # every window has its last place
            codes_seen = codes[rows[mask]]  # (P',)
            aims, wanted = torch.unique(codes[following[learned]], return_inverse=True)  # (T,), (P,)
            present, place = torch.unique(torch.cat([codes_seen, aims]), return_inverse=True)  # (N,)
            seen, asked = place[: len(codes_seen)], place[len(codes_seen) :]  # rows of `vectors`
            vectors = items(present)  # (N, D)
            history = vectors.new_zeros(*mask.shape, vectors.shape[1]).masked_scatter(mask[..., None], vectors[seen])
            user = users(history, mask.float())[learned]  # (P, D)
            loss = in_batch_softmax(user, wanted, vectors[asked], items.bias(aims)[:, 0] - log_q[aims])
            check_finite(loss.item(), "two_tower", step)
            optimiser.param_groups[0]["lr"] = config.learning_rate * min(1, (step + 1) / 100, max(0.02, 1 - done))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        log.info("two_tower epoch %d of %d, %d steps: loss %.3f", epoch + 1, epochs, step, np.mean(losses or [np.nan]))


def in_batch_softmax(user: Tensor, wanted: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
    """Return the mean cross-entropy of each place's target among all targets of the batch.

    An item that is the target of m places stands there once with m times its weight: the same sum, fewer columns.

    Args:
        user: (P, D).
        wanted: rows of `vectors`, (P,).
        vectors: of the targets, (T, D).
        bias: the items' own, less logQ. (T,)
    """
    weight = torch.bincount(wanted).float()  # (T,)
    return F.cross_entropy(user @ vectors.T + bias + torch.log(weight), wanted)
