"""Two-tower retrieval in PyTorch: a user tower over the attended history, an item tower over id and categories.

Both towers meet in a dot product, so that a user is one vector and the catalogue one matrix. Training predicts at every
place of a history one of the next events, by a softmax over the batch's own targets with the logQ correction (Yi et al.
2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations"). The user tower is one causal
self-attention block with a learned bias by age (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation",
without its absolute positions): the users of tomorrow are strangers, so no user has an embedding.

Where the order of events means nothing, there is no next one: the user tower reads the mean of a part of the set, and
its one vector has to find all of the rest (`SetTower`, training/sets.py).

Chosen on the validation part of MovieLens 1M (a second temporal split inside train), ndcg@10, popularity alone .179,
for quality by the second: one epoch at learning rate .006 .267, at .012 .278, in batches of 10 at .006 .278; two epochs
at .012 .296 (the choice; .292 since padding is left out, in 35 processor seconds instead of 44), in windows of 50 and
batches of 40 at .006 .290. Before the bias began at the logarithm of
popularity: two epochs at .006 .292, three .301; horizon 1 .289, 5 .290, 15 .294 against .301 at 5 with windows of 100.
Where data is small, steps overfit: on latest-small, popularity alone .219, at .006 100 steps .190, 150 .199, 300 .178.

Sets, on a fifth of UltraGCN's MovieLens 1M, recall@20 / ndcg@20 (EASE .2246 / .2631), ten epochs unless said, sums over
the root of their number instead of means: learning rate .004 .1958 / .2278, with a cosine over .1 .1585 / .1968, with
other vectors to read than to compare .1833 / .2157; .01 .2129 / .2405; twenty epochs at .02 .2250 / .2466, dropout .4
instead of .2 .2253 / .2501, of .5 and nearer to means .2245 / .2556, with decay .1 .2261 / .2552 at dropout .4; all
targets of a user as heavy as they are many .2218 / .2465; what was read asked for as well .2196 / .2431.
Without even draws the loss is the batch's own targets' as before: with chances of being in the sample, as beside even
draws, the last item of NCF's MovieLens 1M was found a fiftieth less often (recall@10 .2316, .2366).
Short histories, Beauty's validation items, recall@10 / ndcg@10, six epochs: vectors that begin at a deviation of .125
.0755 / .0443, of .02 .0913 / .0548.
"""

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.bundle import Catalogue
from training.dataset import TrainingData
from training.encoders import DotProductModel, weighted_sum
from training.model import (
    Between,
    ModelConfig,
    OneOf,
    Workplace,
    batches,
    check_finite,
    filled,
    popularity,
    recency_shift,
    share_done,
    windows,
)
from training.sampled_softmax import Sample, SampledSoftmax
from training.sets import MAX_HISTORY, Sets

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
MAX_CATEGORIES = 8
log = logging.getLogger(__name__)
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "horizon": Between(1, 20, log=True),
    "dropout": Between(0.0, 0.6),
    "block_dropout": Between(0.0, 0.5),
    "learning_rate": Between(0.002, 0.03, log=True),
    "epochs": Between(1, 30, log=True),
    "negatives": OneOf((0, 1000, 4000)),
    "temperature": OneOf((0.0, 0.05, 0.06, 0.08)),
}


class Config(ModelConfig):
    embedding_size: int = 64
    heads: int = 2
    max_history: int = 100
    horizon: int = 5
    dropout: float = 0.2
    """Of whole items of a history."""
    block_dropout: float = 0.0
    """Of what attention and network add."""
    learned_share: float = 0.5
    epochs: int = 2
    min_steps: int = 100
    batch_size: int = 12
    """In full windows (training.model.batches); in users where the order of events means nothing."""
    learning_rate: float = 0.012
    reg: float = 0.0
    temperature: float = 0.0
    """Above zero the score is a cosine over it; zero: the inner product itself."""
    negatives: int = 0
    """Items drawn evenly a step, beside the batch's own targets."""
    user_exponent: float = 0.5
    """Where order means nothing: a user of m targets weighs m^(1 - user_exponent)."""
    correct_log_q: bool = True
    """Without it what is popular is a negative as often as it is popular, and is learned to be nobody's."""


SHORT_HISTORIES = {
    "max_history": 50, "horizon": 1, "dropout": 0.2, "block_dropout": 0.3, "learned_share": 1.0, "epochs": 15,
    "batch_size": 20, "learning_rate": 0.006, "temperature": 0.06, "negatives": 1000,
}  # fmt: skip
SETS = {"epochs": 20, "batch_size": 400, "learning_rate": 0.02, "dropout": 0.5, "reg": 0.1, "negatives": 4000}
TRIALS = (SHORT_HISTORIES, {}, {"epochs": 6})
"""For the benchmark: what Beauty's short histories want, then what MovieLens' long ones want."""
TRIALS_OF_SETS = (SETS, SETS | {"embedding_size": 128}, SETS | {"epochs": 40, "dropout": 0.6})


class ItemTower(nn.Module):
    """An item is its own vector plus the mean of its categories' vectors."""

    def __init__(self, catalogue: Catalogue, size: int, spread: float):
        """`spread`: deviation of the vectors at the start."""
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
        nn.init.normal_(self.item.weight, std=spread)
        nn.init.zeros_(self.category.weight)
        nn.init.zeros_(self.bias.weight)

    def categories_of(self, items: Tensor) -> Tensor:
        codes = self.categories[items]  # (..., C)
        count = (codes > 0).sum(-1, keepdim=True).clamp(min=1)
        return self.category(codes).sum(-2) / count  # (..., D)

    def forward(self, items: Tensor) -> Tensor:
        are_known = self.category.num_embeddings > 1
        return self.item(items) + self.categories_of(items) if are_known else self.item(items)  # (..., D)


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
        self.dropout, self.block_dropout = nn.Dropout(config.dropout), nn.Dropout(config.block_dropout)

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
        hidden = hidden + self.block_dropout(self.merge(attended))
        hidden = hidden + self.block_dropout(self.narrow(F.gelu(self.widen(self.before_mix(hidden)))))
        return self.last(hidden)  # (B, L, D)


class SetTower(nn.Module):
    """Items of which the order means nothing → the user's vector, from their mean."""

    def __init__(self, config: Config):
        super().__init__()
        size = config.embedding_size
        self.before, self.dropout = nn.LayerNorm(size), nn.Dropout(config.dropout)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.straight = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.straight.weight)

    def forward(self, history: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
        """History and mask (B, L), vectors of all items (I, D) → (B, D)."""
        count = mask.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
        mean = weighted_sum(history, self.dropout(mask), vectors) / count  # (B, D): drops whole items
        hidden = F.relu(self.widen(self.before(mean)))  # (B, 2D)
        return self.straight(mean) + self.narrow(self.dropout(hidden))


def scaled(vectors: Tensor, temperature: float) -> Tensor:
    """Return vectors whose product is their cosine over the temperature; as they are where it is zero. (..., D)"""
    return F.normalize(vectors, dim=-1) * temperature**-0.5 if temperature else vectors


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the user's vector."""

    def __init__(self, item_vectors: Tensor, user_tower: UserTower | SetTower, temperature: float):
        super().__init__()
        self.items = nn.Embedding.from_pretrained(item_vectors)
        self.user_tower, self.temperature = user_tower, temperature

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        if isinstance(self.user_tower, SetTower):
            user = self.user_tower(history, mask, self.items.weight)
        else:
            user = self.user_tower(self.items(history), mask)[:, -1]
        return scaled(user, self.temperature)  # (B, D)


class TwoTower(DotProductModel):
    """The trained towers."""

    def __init__(self, items: ItemTower, users: UserTower | SetTower, data: TrainingData, config: Config):
        self.items, self.users = items.eval(), users.eval()
        self.max_history = config.max_history if data.is_ordered else MAX_HISTORY
        self.counts = popularity(data)  # (I,)
        with torch.no_grad():
            everything = torch.arange(data.n_items)
            trained = torch.from_numpy(np.bincount(data.items, minlength=data.n_items) > 0)
            # An item without a training event is known by its categories alone, and as little used as the least used.
            vectors = torch.where(trained[:, None], items(everything), items.categories_of(everything))  # (I, D)
            bias = items.bias.weight[:, 0]
            bias = torch.where(trained, bias, bias[trained].min())
            self.vectors = scaled(vectors, config.temperature)  # (I, D)
            self.bias = bias + torch.from_numpy(recency_shift(data))  # (I,)
        self.encoder = Encoder(vectors, users, config.temperature).eval()

    def save_native(self, folder: Path) -> None:
        torch.save({"items": self.items.state_dict(), "users": self.users.state_dict()}, folder / "towers.pt")


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Return about the processor seconds of a fit: measured on one core."""
    return 2 + config.epochs * len(data.items) / (40_000 if data.is_ordered else 400_000)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> TwoTower:
    """Train both towers together.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    torch.set_num_threads(workplace.threads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        spread = 0.02 if config.temperature else config.embedding_size**-0.5  # a cosine turns small vectors sooner
        items = ItemTower(data.catalogue, config.embedding_size, spread)
        users = (UserTower if data.is_ordered else SetTower)(config)
        train(items, users, data, config, np.random.default_rng(seed), workplace)
    return TwoTower(items, users, data, config)


def train(
    items: ItemTower,
    users: UserTower | SetTower,
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
    optimiser = torch.optim.AdamW(
        [*items.parameters(), *users.parameters()], lr=config.learning_rate, weight_decay=config.reg, fused=True
    )
    per_epoch, losses_of = (of_windows if data.is_ordered else of_sets)(items, users, data, config, rng)
    epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
    step = 0
    for epoch in range(epochs):
        losses = []
        for loss in losses_of():
            done = share_done(step / (per_epoch * epochs), workplace)
            if done >= 1:
                log.warning("two_tower stops in epoch %d of %d: its time is over", epoch + 1, epochs)
                return
            check_finite(loss.item(), "two_tower", step)
            rising = (step + 1) / min(100, 0.1 * per_epoch * epochs)
            optimiser.param_groups[0]["lr"] = config.learning_rate * min(1, rising, max(0.02, 1 - done))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        log.info("two_tower epoch %d of %d, %d steps: loss %.3f", epoch + 1, epochs, step, np.mean(losses or [np.nan]))


Losses = tuple[int, Callable[[], Iterator[Tensor]]]
"""Steps of an epoch, and what yields the loss of each."""


def of_windows(
    items: ItemTower, users: UserTower, data: TrainingData, config: Config, rng: np.random.Generator
) -> Losses:
    """At every place of a history one of the next events is to be found among the batch's targets."""
    sequences = data.sequences()
    share = np.bincount(data.items, minlength=data.n_items) / len(data.items)  # (I,)
    log_q = torch.from_numpy(np.log(np.maximum(share, 1e-12)) * config.correct_log_q).float()  # (I,)

    def losses() -> Iterator[Tensor]:
        inputs, targets = windows(sequences, config.max_history, rng, config.horizon)
        for batch in batches(inputs, config.batch_size, rng):
            rows, following = filled(inputs, targets, batch)  # (B, L)
            mask = rows >= 0
            learned = mask & (rng.random(mask.shape) < config.learned_share)  # P places
            learned[:, -1] = True  # every window has its last place
            sample = Sample.draw(data.items[following[learned]].astype(np.int64), share, config.negatives, rng)
            codes_seen = torch.from_numpy(data.items[rows[mask]].astype(np.int64))  # (P',)
            present, place = torch.unique(torch.cat([codes_seen, sample.items]), return_inverse=True)  # (N,)
            seen, asked = place[: len(codes_seen)], place[len(codes_seen) :]  # rows of `vectors`
            vectors, mask = items(present), torch.from_numpy(mask)  # (N, D)
            history = vectors.new_zeros(*mask.shape, vectors.shape[1]).masked_scatter(mask[..., None], vectors[seen])
            user = scaled(users(history, mask.float())[torch.from_numpy(learned)], config.temperature)  # (P, D)
            own, bias = vectors[asked], items.bias(sample.items)[:, 0]  # (N, D), (N,)
            if not config.negatives:
                yield in_batch_softmax(user, sample.wanted, scaled(own, config.temperature), bias - log_q[sample.items])
                continue
            yield SampledSoftmax.apply(
                user, scaled(own, config.temperature), bias, sample.wanted,
                sample.log_probability * config.correct_log_q,
            )  # fmt: skip

    return len(batches(windows(sequences, config.max_history, rng)[0], config.batch_size, rng)), losses


def of_sets(items: ItemTower, users: SetTower, data: TrainingData, config: Config, rng: np.random.Generator) -> Losses:
    """Each user's vector, from a part of the set, has to find all items of the rest (training/sets.py)."""
    sets = Sets(data, config.user_exponent)

    def losses() -> Iterator[Tensor]:
        for batch in sets.epoch(config.batch_size, rng):
            sample = Sample.draw(batch.targets, sets.share, config.negatives, rng)
            vectors = items(torch.arange(data.n_items))  # (I, D)
            user = scaled(users(*map(torch.from_numpy, batch.padded()), vectors), config.temperature)  # (B, D)
            logits = user @ scaled(vectors[sample.items], config.temperature).T + items.bias(sample.items)[:, 0]
            total = torch.logsumexp(logits - sample.log_probability * config.correct_log_q, 1)  # (B,)
            asked = torch.from_numpy(batch.asked)
            yield torch.from_numpy(batch.weight) @ (total[asked] - logits[asked, sample.wanted])

    return sets.steps(config.batch_size), losses


def in_batch_softmax(user: Tensor, wanted: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
    """Return the mean cross-entropy of each place's target among all targets of the batch.

    An item that is the target of m places stands there once with m times its weight: the same sum, fewer columns.

    Args:
        user: (P, D).
        wanted: rows of `vectors`, (P,).
        vectors: of the targets, (T, D).
        bias: the items' own, less logQ. (T,)
    """
    weight = torch.bincount(wanted, minlength=len(vectors)).float()  # (T,)
    return F.cross_entropy(user @ vectors.T + bias + torch.log(weight), wanted)
