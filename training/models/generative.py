"""Generative retrieval: a T5 spells the next item's semantic id, code by code, and can spell no item that is not there.

Rajput et al. 2023, "Recommender Systems with Generative Retrieval" (TIGER), on `T5ForConditionalGeneration` (Raffel et
al. 2020). An item's id is a few codes from its text (training/semantic_ids.py); the encoder reads the history, the
decoder spells. Three things differ from the paper, each to fit hours of a GPU into minutes of a processor:

- The encoder gets one place an item, the sum of its codes' vectors, and looks back only. So one pass over a row
  gives the history behind each event, and the decoder spells the targets of all places side by side, each seeing its
  own codes and its own history (the masks below).
- Rows are the unpadded stream of training/next_item.py.
- A code is a softmax over the codes that lead to real items, in training as in the search: no probability is lost on
  ids that name nothing, and every beam ends at an item.

The bundle is of kind `scorer`: its graph holds encoder, decoder and beam search. Items that the search reached have
their log-probability, all others stand below them by popularity. Shapes: B users, L places, W targets or beams, S
levels, C codes, D dimensions, I items.
"""

import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from training.checkpoint import Checkpoint
from training.dataset import TrainingData
from training.encoders import encoded, to_onnx
from training.model import Between, ModelConfig, Parts, Workplace, check_finite, popularity, share_done
from training.models import text_encoder
from training.next_item import Dropout, Stream, rate, visible_ages
from training.semantic_ids import Trie, semantic_ids

FRAMEWORK = "transformers"
FEATURES: tuple[str, ...] = ()
NEEDS_ORDER = True
HIDDEN = -1e4
"""What is added to the logit of what may not be seen or spelt."""
UNREACHED = -1e3
"""Scores of items that no beam reached, plus their log share of the events."""
log = logging.getLogger(__name__)
SPACE = {
    "dropout": Between(0.05, 0.4),
    "input_dropout": Between(0.0, 0.4),
    "learning_rate": Between(0.0005, 0.01, log=True),
    "reg": Between(0.001, 0.3, log=True),
}


class Config(ModelConfig):
    levels: int = 3
    codes: int = 256
    text_size: int = 128
    """Dimensions of the text vectors that are quantised."""
    embedding_size: int = 128
    hidden_size: int = 256
    layers: int = 3
    decoder_layers: int = 2
    heads: int = 4
    max_history: int = 32
    dropout: float = 0.2
    input_dropout: float = 0.3
    beams: int = 20
    epochs: int = 36
    min_steps: int = 100
    batch_size: int = 24
    """In rows of `max_history` places."""
    learning_rate: float = 0.003
    warmup: float = 0.05
    reg: float = 0.1


class Network(nn.Module):
    """The T5 and the tree of real ids."""

    def __init__(self, trie: Trie, config: Config):
        super().__init__()
        self.levels, self.codes, self.beams = config.levels, config.codes, config.beams
        size = config.embedding_size
        self.t5 = T5ForConditionalGeneration(
            T5Config(
                vocab_size=config.levels * config.codes + 1, d_model=size, d_kv=size // config.heads,
                d_ff=config.hidden_size, num_layers=config.layers, num_decoder_layers=config.decoder_layers,
                num_heads=config.heads, dropout_rate=0.0, pad_token_id=config.levels * config.codes,
                decoder_start_token_id=config.levels * config.codes, eos_token_id=None, use_cache=False,
                attn_implementation="eager", relative_attention_num_buckets=16,
                relative_attention_max_distance=64, tie_word_embeddings=True,
            )
        )  # fmt: skip
        for block in [*self.t5.encoder.block, *self.t5.decoder.block]:
            for layer in block.layer:
                layer.dropout = Dropout(config.dropout)
        self.input_dropout = Dropout(config.input_dropout)
        offsets = torch.arange(config.levels) * config.codes
        self.register_buffer("names", torch.from_numpy(trie.codes) + offsets)  # (I, S), as tokens
        for level, table in enumerate(trie.children):
            self.register_buffer(f"children_{level}", torch.from_numpy(table))  # (N_s, C)

    def encode(self, items: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the history behind each place, (B, L, D), and what each may not look at as an addend, (B, L, L)."""
        _, is_visible = visible_ages(place)
        hiding = (~is_visible) * HIDDEN  # (B, L, L)
        vectors = self.input_dropout(self.t5.shared(self.names[items]).sum(2))  # (B, L, S, D) → (B, L, D)
        states = self.t5.encoder(inputs_embeds=vectors, attention_mask=hiding[:, None]).last_hidden_state
        return states, hiding

    def spell(self, states: Tensor, hiding: Tensor, spelt: Tensor) -> Tensor:
        """Return the logits of the code after each of a begun id's. (B, W, s) tokens → (B, W, s + 1, C)

        `hiding` (B, W, L): what of the history each target may not see.
        """
        start = torch.full_like(self.names[:1, :1], self.levels * self.codes).expand(*spelt.shape[:2], 1)
        tokens = torch.cat([start, spelt], 2)  # (B, W, s + 1)
        width, length = tokens.shape[1], tokens.shape[2]
        at = torch.arange(width * length, device=tokens.device)
        own = (at[:, None] // length == at[None] // length) & (at[:, None] >= at[None])  # (W(s+1), W(s+1))
        decoded = self.t5.decoder(
            inputs_embeds=self.t5.shared(tokens.flatten(1)),
            attention_mask=((~own) * HIDDEN)[None, None].expand(tokens.shape[0], 1, -1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=hiding.repeat_interleave(length, 1)[:, None],
        ).last_hidden_state  # (B, W(s+1), D)
        decoded = decoded.unflatten(1, (width, length)) * self.t5.model_dim**-0.5
        heads = self.t5.shared.weight[:-1].unflatten(0, (self.levels, self.codes))  # (S, C, D)
        return torch.einsum("bwsd,scd->bwsc", decoded, heads[:length])

    def child(self, level: int, node: Tensor, code: Tensor) -> Tensor:
        return getattr(self, f"children_{level}")[node, code]

    def possible(self, level: int, node: Tensor, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the codes below these nodes, `HIDDEN` and less where nothing is."""
        is_real = getattr(self, f"children_{level}")[node] >= 0  # (…, C)
        return logits.masked_fill(~is_real, HIDDEN).log_softmax(-1)

    def loss(self, items: Tensor, place: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of -log p(target | history). All (B, L)"""
        states, hiding = self.encode(items, place)
        names = self.names[targets]  # (B, L, S)
        logits = self.spell(states, hiding, names[..., :-1])  # (B, L, S, C)
        node, loss = torch.zeros_like(targets), logits.new_zeros(())
        for level in range(self.levels):
            code = names[..., level] - level * self.codes
            loss = loss - self.possible(level, node, logits[:, :, level]).gather(-1, code[..., None]).mean()
            node = self.child(level, node, code)
        return loss

    def search(self, items: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items at the ends of the best beams and their log-probabilities, best first. Both (B, W)

        Histories are right-aligned; `mask` (B, L) float.
        """
        place = (mask.cumsum(1) - 1).clamp(min=0).long()
        states, _ = self.encode(items, place)
        hiding = (1 - mask)[:, None] * HIDDEN  # (B, 1, L)
        score = mask[:, :1] * 0  # (B, 1)
        node = score.long()
        spelt = self.names.new_zeros(1, 1, 0).expand(items.shape[0], 1, 0)  # (B, 1, 0)
        for level in range(self.levels):
            logits = self.spell(states, hiding.expand(-1, spelt.shape[1], -1), spelt)[:, :, -1]  # (B, W, C)
            total = (score[..., None] + self.possible(level, node, logits)).flatten(1)  # (B, WC)
            ends = self.names.shape[0] if level == self.levels - 1 else getattr(self, f"children_{level + 1}").shape[0]
            score, best = total.topk(min(self.beams, ends), 1)
            beam, code = best // self.codes, best % self.codes
            node = self.child(level, node.gather(1, beam), code)
            before = spelt.gather(1, beam[..., None].expand(-1, -1, spelt.shape[2]))
            spelt = torch.cat([before, (code + level * self.codes)[..., None]], 2)
        return node, score


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the scores of all items."""

    def __init__(self, network: Network, floor: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("floor", floor)  # (I,)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        items, score = self.network.search(history, mask)
        is_real = (items >= 0) & (score > HIDDEN / 2)  # where fewer items are left than beams
        reached = torch.where(is_real, score, self.floor[items.clamp(min=0)])
        return self.floor.expand(history.shape[0], -1).scatter(1, items.clamp(min=0), reached)


class Generative:
    """The trained T5."""

    def __init__(self, network: Network, vectors: np.ndarray, data: TrainingData, config: Config):
        """`vectors`: what the ids were made of, (I, E)."""
        self.network, self.config, self.counts = network.eval(), config, popularity(data)
        self.vectors = vectors.astype(np.float32)
        share = (self.counts + 1) / (self.counts + 1).sum()
        self.encoder = Encoder(network, torch.from_numpy(UNREACHED + np.log(share)).float()).eval()

    @torch.inference_mode()
    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return encoded(self.encoder, histories, self.config.max_history, at_once=64).numpy()

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors}
        return Parts("scorer", arrays, to_onnx(self.encoder, "scores"), {"max_history": self.config.max_history})

    def save_native(self, folder: Path) -> None:
        self.network.t5.save_pretrained(folder / "t5")
        np.save(folder / "semantic_ids.npy", self.network.names.numpy())


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Generative:
    """Quantise the items' texts, then train the T5 to spell what follows.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    vectors = text_encoder.encode(data.texts, text_encoder.Config(), workplace)
    vectors = text_encoder.half_whiten(vectors, popularity(data) + 1, config.text_size)
    return fit_on(vectors, data, config, seed, workplace)


def fit_on(vectors: np.ndarray, data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Generative:
    """The same from vectors of the items, (I, E)."""
    torch.set_num_threads(workplace.threads)
    trie = Trie.of(semantic_ids(vectors, config.levels, config.codes, seed), config.codes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(trie, config)
        train(network, data, config, seed, workplace)
    return Generative(network, vectors, data, config)


def train(network: Network, data: TrainingData, config: Config, seed: int, workplace: Workplace) -> None:
    """Train for the configured epochs, or for as long as the workplace allows, whichever ends first."""
    stream = Stream(data)
    steps = max(1, stream.places // (config.batch_size * config.max_history))
    epochs = max(config.epochs, math.ceil(config.min_steps / steps))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.reg, fused=True
    )
    checkpoint = Checkpoint.of("generative", data, config, seed, workplace)
    for epoch in checkpoint.epochs(network, optimiser, epochs):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        rows = stream.rows(config.max_history, rng)
        losses: list[float] = []
        for batch in np.array_split(np.arange(len(rows[0])), min(steps, len(rows[0]))):
            done = share_done((epoch + len(losses) / steps) / epochs, workplace)
            if done >= 1:
                log.warning("generative stops in epoch %d of %d: its time is over", epoch + 1, epochs)
                checkpoint.remove()
                return
            optimiser.param_groups[0]["lr"] = config.learning_rate * rate(done, config.warmup)
            optimiser.zero_grad()
            loss = network.loss(*(torch.from_numpy(values[batch]) for values in rows))
            losses.append(loss.item())
            check_finite(losses[-1], "generative", epoch * steps + len(losses))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        log.info("generative epoch %d of %d: loss %.3f", epoch + 1, epochs, np.mean(losses))
