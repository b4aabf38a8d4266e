"""SASRec in PyTorch: causal self-attention over the user's latest items predicts the next one.

Kang and McAuley 2018, "Self-Attentive Sequential Recommendation": learned positions, blocks of self-attention and a
point-wise network, the output scored against the table of item vectors that the input comes from. Trained otherwise
than in the paper, where the loss is a binary one against one random item a place: see training/next_item.py.

Chosen on the validation items of S3-Rec's Beauty, recall@10 / ndcg@10, 15 epochs at learning rate .006, unless
said. Inner product instead of cosine, all dropout .5, rate .01: .0874 / .0492. Cosine over .05, all dropout .5, rate
.01: .0933 / .0537; over .07, .006: .0957 / .0547; over .05, one of the next two items as target: .0860 / .0471.
What had been wrong was the dropout: of the input .3, over .05 .0990 / .0594; .2, over .07 .1024 / .0620. Then of the
block .3, over .06 .1050 / .0646 (the choice), .1 .1016 / .0638.
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
TRIALS, TRIALS_OF_SHORT, SPACE = next_item.TRIALS, next_item.TRIALS_OF_SHORT, next_item.SPACE
estimate_seconds = next_item.estimate_seconds


class Config(NextItemConfig):
    """As in training/next_item.py."""


class Block(nn.Module):
    """Self-attention, then a network over each place by itself; both normalise what they read and add to it."""

    def __init__(self, config: Config):
        super().__init__()
        size, self.heads = config.embedding_size, config.heads
        self.before_attention, self.before_mix = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.merge = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, size), nn.Linear(size, size)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, is_visible: Tensor) -> Tensor:
        """Hidden states (B, L, D), and what each place may look at (B, 1, L, L)."""
        project = self.project(self.before_attention(hidden))  # (B, L, 3D)
        query, key, value = project.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D/H) each
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=is_visible)  # (B, H, L, D/H)
        hidden = hidden + self.dropout(self.merge(attended.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.narrow(F.gelu(self.widen(self.before_mix(hidden)))))


class Trunk(nn.Module):
    """Item vectors of a history → the user's state after each place."""

    def __init__(self, config: Config):
        super().__init__()
        self.position = nn.Embedding(config.max_history, config.embedding_size)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = Dropout(config.input_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last = nn.LayerNorm(config.embedding_size)

    def forward(self, vectors: Tensor, place: Tensor) -> Tensor:
        _, is_visible = visible_ages(place)  # (B, L, L)
        hidden = self.dropout(vectors + self.position(place))  # (B, L, D)
        for block in self.blocks:
            hidden = block(hidden, is_visible[:, None])
        return self.last(hidden)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> NextItemModel:
    """Train SASRec.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    return next_item.fit("sasrec", lambda: Trunk(config), data, config, seed, workplace)
