"""An HSTU-like sequential recommender in PyTorch: gated, point-wise attention instead of SASRec's softmax.

Zhai et al. 2024, "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations". A block is three steps: one projection to gate, value, query and key under SiLU; attention whose
weights are SiLU(q · k + a bias by relative position) over the row's length, so that they need not sum to one and tell
how much of something there was, not only its share; and the normalised sum, gated element by element, projected back.
There is no second network. The paper's bias by time between events is left out: the bundle's encoder is asked with
items in their order and no instants.

Chosen on the validation items of S3-Rec's Beauty, recall@10 / ndcg@10, from what is best for SASRec (.0962 / .0606):
with dropout .4 and of the input .3 .0993 / .0620, then with 128 dimensions .0980 / .0622, of these over .05 and dropout
.3 .0990 / .0630, with two layers and dropout .5 .0964 / .0602; with 64 dimensions and the bias of all ages from 1
instead of 0 .1014 / .0628 (the choice).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from training import next_item
from training.dataset import TrainingData
from training.model import Workplace
from training.next_item import Dropout, NextItemConfig, NextItemModel, visible_ages

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
NEEDS_ORDER = True
LONG: dict = {
    "max_history": 200, "batch_size": 8, "layers": 2, "heads": 1, "dropout": 0.2, "temperature": 0.05,
    "learning_rate": 0.003,
}  # fmt: skip
SHORT: dict = {"input_dropout": 0.3, "dropout": 0.4}
TRIALS: tuple[dict, ...] = ({**LONG, "age_bias": 0.0, "epochs": 16}, {**LONG, "age_bias": 0.0, "epochs": 8}, SHORT)
"""For the benchmark: what MovieLens 1M's long histories want (docs/results/sequence.md), the same for half the time,
and what Beauty's short ones want."""
TRIALS_OF_SHORT = (SHORT,)
"""What Beauty's short ones want."""
SPACE = next_item.SPACE
estimate_seconds = next_item.estimate_seconds


class Config(NextItemConfig):
    """As in training/next_item.py."""

    age_bias: float = 1.0
    """Where the bias of every age begins. At 0, where SiLU is 0, a training first has to find out that history counts;
    what is known of long histories was measured so."""


class Block(nn.Module):
    """Point-wise aggregated attention, gated."""

    def __init__(self, config: Config):
        super().__init__()
        size, self.heads, self.longest = config.embedding_size, config.heads, config.max_history
        self.before, self.after = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.merge = nn.Linear(size, 4 * size), nn.Linear(size, size)
        self.by_age = nn.Embedding(config.max_history, config.heads)
        nn.init.constant_(self.by_age.weight, config.age_bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, age: Tensor, is_visible: Tensor) -> Tensor:
        """Hidden states (B, L, D), columns' ages (L, L), which of them a row sees (B, 1, L, L)."""
        gate, *others = F.silu(self.project(self.before(hidden))).chunk(4, -1)  # (B, L, D) each
        value, query, key = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in others)  # (B, H, L, D/H)
        bias = self.toeplitz(len(age)) if self.training else self.by_age(age).permute(2, 0, 1)  # (H, L, L)
        weights = F.silu(query @ key.transpose(-1, -2) + bias) * (is_visible / self.longest)  # (B, H, L, L)
        found = self.after((weights @ value).transpose(1, 2).flatten(2))  # (B, L, D)
        return hidden + self.dropout(self.merge(gate * found))

    def toeplitz(self, length: int) -> Tensor:
        """Return each row's bias for each column up to its own, as `by_age` of their ages, for a row that is no longer
        than the longest. Gradients of an embedding are added place by place; these as a sum. (H, L, L)"""
        newest_last = self.by_age.weight[:length].T.flip(1)  # (H, L)
        return F.pad(newest_last, (0, length - 1)).unfold(1, length, 1).flip(1)


class Trunk(nn.Module):
    """Item vectors of a history → the user's state after each place."""

    def __init__(self, config: Config):
        super().__init__()
        self.longest = config.max_history
        self.dropout = Dropout(config.input_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last = nn.LayerNorm(config.embedding_size)

    def forward(self, vectors: Tensor, place: Tensor) -> Tensor:
        age, is_visible = visible_ages(place)
        age = age.clamp(0, self.longest - 1)
        hidden = self.dropout(vectors)  # (B, L, D)
        for block in self.blocks:
            hidden = block(hidden, age, is_visible[:, None])
        return self.last(hidden)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> NextItemModel:
    """Train the HSTU-like model.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    return next_item.fit("hstu", lambda: Trunk(config), data, config, seed, workplace)
