"""Three opinions of an item, blended by how much is known of the user; the blend is learnt.

What others with the same taste used (training/models/mf.py), what reads like the user's history
(training/models/text_encoder.py), and what everybody uses. Of a user with one interaction the first knows little, of
one with a hundred nearly all. So each opinion's weight is a function of the length n of the history, a line from knot
to knot on a logarithmic scale. That a weight may depend on the case at hand: Sill, Takács, Mackey, Lin 2009,
"Feature-Weighted Linear Stacking"; that what to trust depends on how much is known: Burke 2002, "Hybrid Recommender
Systems: Survey and Experiments", the switching hybrids.

The weights are those that make the next item most likely: of some users the latest item is taken away, the factors are
trained without it, the history is cut to a random length, and the softmax over the catalogue is minimised over the
weights alone. Then the factors are trained again on everything. In the bundle the blend is one product: the opinions'
user vectors, each times its weight, laid end to end. Shapes: K knots, C opinions, J items of the sample.

What is likeliest is not what fills ten places best. On the validation items of S3-Rec's Beauty, recall@10 of users with
1 to 5, 6 to 20, over 20 known: .0722, .0644, .0733; with as many long stretches as short ones .0722, .0611, .0744;
with the weights .33, 1.2 and a fifth of the learnt one for popularity .0622, .0589, .0967; by the softmax over each
opinion's 30 best alone the weights go to zero. So popularity steps back (`refine`): docs/results/cold_start.md.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.dataset import TrainingData
from training.encoders import FOLDED_AT_ONCE, MAX_HISTORY, encoded, recency_weights, to_onnx, weighted_sum
from training.factors import FactorModel
from training.model import Between, OneOf, Parts, Workplace, padded_blocks, popularity
from training.models import mf, text_encoder

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = mf.SPACE | {"text_size": OneOf((32, 64, 128, 256)), "text_recency": Between(0.0, 1.5)}
KNOTS = (1.0, 3.0, 8.0, 20.0, 60.0)
"""Lengths of history at which a weight is free."""
OPINIONS = ("collaborative", "content", "popularity")
MOST_ASKED, MOST_CANDIDATES, FEWEST_ASKED = 4000, 4096, 20
POPULARITY_SHARES = (1.0, 0.5, 0.2, 0.1, 0.0)
"""Of popularity's likeliest weight: what is tried at each knot."""
SWEEPS, FEWEST_NEAR, LEAST_CONCERN, LEAST_GAIN = 2, 100, 0.3, 0.001
"""Times that all knots are looked at; users who have to be near a knot, and from which share of it on they are; how
much more ndcg@10 a change has to bring."""
UNLEARNT = (1.0, 0.1, 0.1)
"""Weights, in deviations of each opinion, where too few users have two items."""
log = logging.getLogger(__name__)


class Config(mf.Config):
    text_size: int = 128
    text_recency: float = 0.5
    """The item `a` places back weighs (1 + a)^-text_recency in what the user's history says in words."""
    max_tokens: int = 48
    smoothness: float = 0.01
    """What a weight's jump from knot to knot costs, squared."""


class Blend(nn.Module):
    """History lengths (B,) → weights (B, C)."""

    def __init__(self, scale: Tensor):
        """`scale`: the deviation of each opinion's scores, (C,)."""
        super().__init__()
        start = torch.tensor(UNLEARNT).expm1().log()  # softplus gives them back
        self.raw = nn.Parameter(start.repeat(len(KNOTS), 1))  # (K, C)
        self.register_buffer("scale", scale)
        self.register_buffer("knots", torch.tensor(KNOTS).log())

    def shares(self, lengths: Tensor) -> Tensor:
        """Return how much each knot has to say, (B, K), which sums to one."""
        at = lengths.clamp(KNOTS[0], KNOTS[-1]).log()[:, None]  # (B, 1)
        left, right = self.knots[:-1], self.knots[1:]
        reached = ((at - left) / (right - left)).clamp(0, 1)  # (B, K - 1): how far along each stretch
        ones = torch.ones_like(at)
        return torch.cat([ones, reached], 1) - torch.cat([reached, 0 * ones], 1)

    def forward(self, lengths: Tensor) -> Tensor:
        return self.shares(lengths) @ nn.functional.softplus(self.raw) / self.scale

    def set(self, knot: int, weights: Tensor) -> None:
        """Set the weights at a knot, (C,), zero or more."""
        self.raw[knot] = weights.clamp(min=1e-6).expm1().log()

    def roughness(self) -> Tensor:
        return self.raw.diff(dim=0).square().sum()


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask → the opinions' user vectors, weighed, end to end."""

    def __init__(self, factors: nn.Module, texts: Tensor, recency: float, blend: Blend):
        super().__init__()
        self.factors, self.recency, self.blend = factors, recency, blend
        self.register_buffer("texts", texts)  # (I, E)

    def opinions(self, history: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the factors and the texts say of the user. (B, D), (B, E)"""
        weights = recency_weights(mask, self.recency)
        weights = weights / weights.sum(1, keepdim=True)
        return self.factors(history, mask), weighted_sum(history, weights, self.texts)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        taste, words = self.opinions(history, mask)
        weight = self.blend(mask.sum(1))  # (B, C)
        return torch.cat([weight[:, :1] * taste, weight[:, :1], weight[:, 1:2] * words, weight[:, 2:]], 1)


@dataclass(frozen=True)
class Hybrid:
    """The blend of the fitted opinions."""

    encoder: Encoder
    vectors: Tensor
    """Factors, their bias, text and popularity of each item. (I, D + 1 + E + 1)"""
    counts: np.ndarray

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return (encoded(self.encoder, histories, at_once=FOLDED_AT_ONCE) @ self.vectors.T).numpy()  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors.numpy()}
        return Parts("onnx", arrays, to_onnx(self.encoder, "user_vector"), {"max_history": MAX_HISTORY})

    def save_native(self, folder: Path) -> None:
        torch.save({"encoder": self.encoder.state_dict(), "vectors": self.vectors}, folder / "hybrid.pt")


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Hybrid:
    """Learn the weights on what was taken away, then the factors on everything.

    Raises:
        CheckFailed: the factors' loss is no longer finite.
    """
    texts = text_vectors(data, config, workplace)  # (I, E)
    factor_config = mf.Config(**{name: getattr(config, name) for name in mf.Config.model_fields})
    rest, histories, targets = taken_away(data, seed)
    if len(targets) >= FEWEST_ASKED:
        blend = learn(
            mf.fit(rest, factor_config, seed, workplace.part(0.45)), rest, texts, histories, targets, config, seed
        )
    else:
        blend = Blend(torch.ones(len(OPINIONS)))
    factors = mf.fit(data, factor_config, seed, workplace)
    encoder = Encoder(factors.encoder, texts, config.text_recency * data.is_ordered, blend).eval()
    for name, column in zip(OPINIONS, nn.functional.softplus(blend.raw.detach()).T.tolist(), strict=True):
        log.info("hybrid: weight of %s at %s interactions: %s", name, KNOTS, [round(weight, 2) for weight in column])
    return Hybrid(encoder, item_vectors(factors, texts, data), popularity(data))


def text_vectors(data: TrainingData, config: Config, workplace: Workplace) -> Tensor:
    """Return what the texts say of each item. (I, E)"""
    encoder = text_encoder.Config(embedding_size=config.text_size, max_tokens=config.max_tokens)
    read = text_encoder.encode(data.texts, encoder, workplace)
    return torch.from_numpy(text_encoder.half_whiten(read, popularity(data), config.text_size))


def item_vectors(factors: FactorModel, texts: Tensor, data: TrainingData) -> Tensor:
    """Return the opinions' item vectors end to end. (I, D + 1 + E + 1)"""
    counts = torch.from_numpy(popularity(data))
    share = ((counts + 1) / (counts.sum() + len(counts))).log()  # (I,)
    return torch.cat([factors.vectors, factors.bias[:, None], texts, (share - share.mean())[:, None]], 1)


def taken_away(data: TrainingData, seed: int) -> tuple[TrainingData, list[np.ndarray], np.ndarray]:
    """Return the data without some users' latest item, and of each of them a stretch of the history, of random length,
    and that item. (B,) of (n,), (B,)"""
    rng = np.random.default_rng([seed, 31])
    able = [rows for rows in data.sequences() if len(rows) > 1]
    chosen = [able[place] for place in rng.permutation(len(able))[:MOST_ASKED]]
    lengths = [int(np.exp(rng.uniform(0, np.log(len(rows))))) for rows in chosen]  # of 1 to all but one
    histories = [data.items[rows[-1 - length : -1]] for rows, length in zip(chosen, lengths, strict=True)]
    last = np.array([rows[-1] for rows in chosen], int)
    pairs = data.users.astype(np.int64) * data.n_items + data.items
    kept = ~np.isin(pairs, pairs[last])
    features = None if data.user_features is None else data.user_features[kept]
    instants = data.instants[kept]
    rest = replace(data, users=data.users[kept], items=data.items[kept], instants=instants, user_features=features)
    return rest, histories, data.items[last]


def learn(
    factors: FactorModel,
    data: TrainingData,
    texts: Tensor,
    histories: list[np.ndarray],
    targets: np.ndarray,
    config: Config,
    seed: int,
) -> Blend:
    """Return the weights under which the targets are likeliest."""
    vectors, rng = item_vectors(factors, texts, data), np.random.default_rng([seed, 37])
    drawn = rng.permutation(data.n_items)[:MOST_CANDIDATES]
    items = np.unique(np.concatenate([drawn, targets]))  # (J,)
    size, among = factors.vectors.shape[1], vectors[torch.from_numpy(items)]
    recency = config.text_recency * data.is_ordered
    encoder = Encoder(factors.encoder, texts, recency, Blend(torch.ones(len(OPINIONS)))).eval()
    said = torch.empty(len(histories), len(items), len(OPINIONS))  # (B, J, C)
    seen = torch.zeros(len(histories), len(items), dtype=torch.bool)
    with torch.no_grad():
        for rows, used, mask in padded_blocks(histories, MAX_HISTORY):
            taste, words = encoder.opinions(torch.from_numpy(used), torch.from_numpy(mask))
            popular = among[:, -1].expand(len(rows), -1)
            each = (taste @ among[:, :size].T + among[:, size], words @ among[:, size + 1 : -1].T, popular)
            said[torch.from_numpy(rows)] = torch.stack(each, -1)  # (b, J, C)
    for row, history in enumerate(histories):
        seen[row] = torch.from_numpy(np.isin(items, history) & (items != targets[row]))
    blend = Blend(said.flatten(0, 1)[:1_000_000].std(0).clamp(min=1e-6))
    lengths = torch.tensor([float(len(history)) for history in histories])
    wanted = torch.from_numpy(np.searchsorted(items, targets))
    optimiser = torch.optim.LBFGS(blend.parameters(), max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = torch.einsum("bjc,bc->bj", said, blend(lengths)).masked_fill(seen, -1e9)
        missed = nn.functional.cross_entropy(logits, wanted) + config.smoothness * blend.roughness()
        missed.backward()
        return missed

    optimiser.step(loss)
    blend.requires_grad_(False)
    refine(blend, said, seen, lengths, wanted)
    return blend


def refine(blend: Blend, said: Tensor, seen: Tensor, lengths: Tensor, wanted: Tensor) -> None:
    """Lower popularity's weight, knot by knot, to the share of it under which the first places hold most of the
    targets: what is likeliest is not what fills ten places best. A knot of which few were asked follows the one before.

    Args:
        said: what each opinion says of each item of the sample. (B, J, C)
        seen: items that are not shown. bool (B, J)
        lengths: of the histories. (B,)
        wanted: places of the targets in the sample. (B,)
    """
    learnt, chosen = nn.functional.softplus(blend.raw), [1.0] * len(KNOTS)  # (K, C)
    for _ in range(SWEEPS):
        for knot in range(len(KNOTS)):
            near = torch.nonzero(blend.shares(lengths)[:, knot] > LEAST_CONCERN)[:, 0]
            if len(near) < FEWEST_NEAR:
                chosen[knot] = chosen[max(knot - 1, 0)]
            else:
                filled = {}
                for share in POPULARITY_SHARES:
                    blend.set(knot, learnt[knot] * torch.tensor([1.0, 1.0, share]))
                    filled[share] = places_filled(blend, said[near], seen[near], lengths[near], wanted[near])
                best = max(filled, key=filled.__getitem__)  # the first of equals: what was learnt
                chosen[knot] = best if filled[best] > filled[1.0] + LEAST_GAIN else 1.0
            blend.set(knot, learnt[knot] * torch.tensor([1.0, 1.0, chosen[knot]]))


def places_filled(blend: Blend, said: Tensor, seen: Tensor, lengths: Tensor, wanted: Tensor) -> float:
    """Return the mean over users of ndcg@10, one target each, among the items of the sample; of ties half stand before
    it."""
    scores = torch.einsum("bjc,bc->bj", said, blend(lengths)).masked_fill(seen, -torch.inf)  # (B, J)
    own = scores.gather(1, wanted[:, None])
    before = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2  # (B,)
    return float(torch.where(before < 10, 1 / (before + 2.0).log2(), 0.0).mean())
