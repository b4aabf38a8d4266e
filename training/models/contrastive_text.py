"""A sentence encoder that has learnt from users which texts belong together.

Pre-trained encoders put texts together that mean the same; what is used together often means something else (a shampoo
and its conditioner, a film and the one that fans of it watch next). Fine-tuned by contrast, an item's vector is drawn
to those of items that users used next to it and pushed from the others of the batch: the InfoNCE loss of van den Oord,
Li, Vinyals 2018, on pairs of co-interactions as in Hou et al. 2022, "Towards Universal Sequence Representation
Learning for Recommender Systems". An item is in a batch as often as it is popular, which the softmax corrects
(logQ: Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling").

What is learnt depends on nothing but texts, so that it holds for items that nobody has used. Trained are the last
`tuned_layers` layers and a projection behind them; what the frozen layers below say of each text is computed once and
kept in 16 bits, which is what makes this affordable on a processor. Users and scores are those of
training/models/text_encoder.py. Shapes: N distinct texts, T tokens, H hidden, B pairs of a batch.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from training.checkpoint import Checkpoint
from training.dataset import TrainingData
from training.model import Between, Workplace, check_finite, popularity, share_done, to_answer_with
from training.models import text_encoder
from training.models.text_encoder import CHECKPOINT, TextEncoder

FRAMEWORK = "transformers"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = {
    "temperature": Between(0.02, 0.2, log=True),
    "learning_rate": Between(0.0001, 0.002, log=True),
    "horizon": Between(1, 10, log=True),
    "recency_exponent": Between(0.0, 1.5),
    "popularity_weight": Between(0.005, 0.5, log=True),
}
log = logging.getLogger(__name__)


class Config(text_encoder.Config):
    embedding_size: int = 128
    max_tokens: int = 40
    tuned_layers: int = 1
    horizon: int = 3
    """An item's partner is one of the next so many of the same user."""
    temperature: float = 0.05
    epochs: int = 6
    pairs: int = 4000
    """Of an epoch, at most."""
    min_steps: int = 20
    batch_size: int = 192
    learning_rate: float = 0.0005
    reg: float = 0.01


class Head(nn.Module):
    """The trained part: what the frozen layers say of a text → its vector of length one."""

    def __init__(self, layers: nn.ModuleList, hidden: int, size: int):
        super().__init__()
        self.layers, self.project = layers, nn.Linear(hidden, size, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, H), (B,) → (B, D)"""
        there = torch.arange(hidden.shape[1]) < lengths[:, None]  # (B, T)
        for layer in self.layers:
            hidden = layer(hidden, there[:, None, None])
        mean = (hidden * there[..., None]).sum(1) / lengths[:, None]
        return F.normalize(self.project(mean), dim=-1)


@dataclass(frozen=True)
class Read:
    """What the frozen layers say of each distinct text."""

    hidden: Tensor
    """float16 (N, T, H)"""
    lengths: Tensor
    """Tokens of each. (N,)"""
    text: Tensor
    """Each item's text. (I,)"""

    def of(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        lengths = self.lengths[texts]
        return self.hidden[texts, : int(lengths.max())].float(), lengths


@dataclass(frozen=True)
class Contrastive(TextEncoder):
    """The tuned encoder's vectors."""

    head: Head

    def save_native(self, folder: Path) -> None:
        super().save_native(folder)
        torch.save(self.head.state_dict(), folder / "head.pt")


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Contrastive:
    """Read the texts by the frozen layers, tune the others, and encode every item.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    torch.set_num_threads(workplace.threads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        read, head = frozen_part(data.texts, config)
        train(head, read, data, config, seed, workplace)
    vectors = encoded(head, read)[read.text].numpy()  # (I, D)
    counts = popularity(data)
    bias = (config.popularity_weight * np.log1p(counts)).astype(np.float32)
    return Contrastive(vectors, bias, counts, to_answer_with(config, data), head)


@torch.no_grad()
def frozen_part(texts: tuple[str, ...], config: Config) -> tuple[Read, Head]:
    """Return what the lower layers say of the texts, and the layers above with a new projection."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)
    model = AutoModel.from_pretrained(CHECKPOINT, local_files_only=True).eval()
    lower, upper = model.encoder.layer[: -config.tuned_layers], model.encoder.layer[-config.tuned_layers :]
    model.encoder.layer = lower
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # like lengths, little padding
    code = {text: place for place, text in enumerate(distinct)}
    hidden = torch.zeros(len(distinct), config.max_tokens, model.config.hidden_size, dtype=torch.float16)
    lengths = torch.zeros(len(distinct), dtype=torch.long)
    for start in range(0, len(distinct), config.batch_size):
        batch = distinct[start : start + config.batch_size]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=config.max_tokens, return_tensors="pt")
        rows, width = slice(start, start + len(batch)), tokens["input_ids"].shape[1]
        hidden[rows, :width] = model(**tokens).last_hidden_state.half()
        lengths[rows] = tokens["attention_mask"].sum(1)
    upper.requires_grad_(True)
    return (
        Read(hidden, lengths, torch.tensor([code[text] for text in texts])),
        Head(upper, model.config.hidden_size, config.embedding_size),
    )


def partners(data: TrainingData, config: Config, rng: np.random.Generator) -> np.ndarray:
    """Return pairs of items that a user used near to each other, a random part of `config.pairs`. (P, 2)"""
    rows = data.sequences()
    lengths = np.array([len(own) for own in rows])
    events, ends = np.concatenate(rows), np.repeat(np.cumsum(lengths), lengths)  # (n,)
    first = np.flatnonzero(np.arange(len(events)) + 1 < ends)  # all but each user's last
    first = rng.permutation(first)[: config.pairs]
    other = np.minimum(first + rng.integers(1, config.horizon + 1, len(first)), ends[first] - 1)
    return data.items[events[np.stack([first, other], 1)]].astype(np.int64).reshape(-1, 2)


def train(head: Head, read: Read, data: TrainingData, config: Config, seed: int, workplace: Workplace) -> None:
    """Tune for the configured epochs, or as long as the workplace allows."""
    available = len(partners(data, config, np.random.default_rng(seed)))
    if not available:
        log.warning("contrastive_text: no user has two items, the encoder stays as it is")
        return
    steps = max(1, available // config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_steps / steps))
    share = np.bincount(data.items, minlength=data.n_items) / len(data.items)
    log_share = torch.from_numpy(np.log(np.maximum(share, 1e-9))).float()  # (I,)
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.reg)
    checkpoint = Checkpoint.of("contrastive_text", data, config, seed, workplace)
    head.train()
    for epoch in checkpoint.epochs(head, optimiser, epochs):
        rng, losses = np.random.default_rng([seed, epoch]), []
        torch.manual_seed(int(rng.integers(2**63)))
        pairs = partners(data, config, rng)
        for batch in np.array_split(pairs, steps):
            done = share_done((epoch + len(losses) / steps) / epochs, workplace)
            if done >= 1:
                log.warning("contrastive_text stops in epoch %d of %d: its time is over", epoch + 1, epochs)
                checkpoint.remove()
                head.eval()
                return
            optimiser.param_groups[0]["lr"] = config.learning_rate * (1 - done)
            optimiser.zero_grad()
            loss = contrast(head, read, torch.from_numpy(batch), log_share, config.temperature)
            losses.append(loss.item())
            check_finite(losses[-1], "contrastive_text", epoch * steps + len(losses))
            loss.backward()
            optimiser.step()
        log.info("contrastive_text epoch %d of %d: loss %.3f", epoch + 1, epochs, np.mean(losses))
    head.eval()


def contrast(head: Head, read: Read, pairs: Tensor, log_share: Tensor, temperature: float) -> Tensor:
    """Return the mean over both directions of -log softmax of a pair among the batch's, (B, 2) items."""
    items, place = pairs.unique(return_inverse=True)  # (J,), (B, 2)
    vectors = head(*read.of(read.text[items]))  # (J, D): each item once
    losses = []
    for one, other in ((0, 1), (1, 0)):
        asked, wanted = place[:, one], place[:, other]
        logits = vectors[asked] @ vectors.T / temperature - log_share[items]  # (B, J)
        logits = logits.scatter(1, asked[:, None], -1e4)  # nobody is its own partner
        logits[torch.arange(len(asked)), wanted] = (vectors[asked] * vectors[wanted]).sum(1) / temperature - log_share[
            items[wanted]
        ]
        losses.append(F.cross_entropy(logits, wanted))
    return sum(losses) / 2


@torch.no_grad()
def encoded(head: Head, read: Read, at_once: int = 512) -> Tensor:
    """Return the vector of each distinct text. float32 (N, D)"""
    head.eval()
    return torch.cat([head(*read.of(part)) for part in torch.arange(len(read.lengths)).split(at_once)])
