"""A cross-encoder re-ranks a few chosen items: a Transformer that reads the user's history and one candidate together.

Nogueira and Cho 2019, "Passage Re-ranking with BERT", with what the user used last in place of the query: titles of the
`history_items` latest items, then the candidate's text, in one sequence, so that every word of one can look at every
word of the other. It cannot be indexed and costs a pass a pair, so it sees only the first candidates of a retriever.

Trained on the lists that it will be asked about: of a user the next item and `negatives` others drawn from the
retriever's own first candidates, by the softmax over that list (Gao, Dai, Callan 2021, "Rethink Training of BERT
Rerankers in Multi-Stage Retrieval Pipeline"). What it says is added to the retriever's standardised score, times a
weight that a validation part chooses: where reading helps nothing, the weight is 0 and the order stays. The lowest
`layers` of the checkpoint are kept. Shapes: B users, N candidates, T tokens.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BatchEncoding

from recsys import metrics
from recsys.errors import CheckFailed
from training.model import ModelConfig, check_finite
from training.models.text_encoder import CHECKPOINT

FRAMEWORK = "transformers"
WEIGHTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
log = logging.getLogger(__name__)


class Config(ModelConfig):
    history_items: int = 4
    history_tokens: int = 48
    max_tokens: int = 80
    layers: int = 2
    negatives: int = 4
    lists: int = 1500
    """Training lists, at most; each is read once an epoch."""
    epochs: int = 1
    batch_size: int = 12
    """In lists."""
    learning_rate: float = 0.0003
    validation_lists: int = 200
    k: int = 10


@dataclass(frozen=True)
class Lists:
    """Users, what they have used, and what a retriever proposes."""

    histories: list[np.ndarray]
    """Item codes, oldest first; never empty. (B,) of (L,)"""
    candidates: np.ndarray
    """Best first. int (B, N)"""
    scores: np.ndarray
    """The retriever's. (B, N)"""
    targets: np.ndarray
    """The item that came next, whether it is among the candidates or not. (B,)"""

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, chosen: np.ndarray) -> "Lists":
        histories = [self.histories[row] for row in chosen]
        return Lists(histories, self.candidates[chosen], self.scores[chosen], self.targets[chosen])


class Network(nn.Module):
    """Pairs of texts as tokens → one number a pair."""

    def __init__(self, layers: int):
        super().__init__()
        self.reader = AutoModel.from_pretrained(CHECKPOINT, local_files_only=True)
        self.reader.encoder.layer = self.reader.encoder.layer[:layers]
        self.reader.pooler = None
        self.last = nn.Linear(self.reader.config.hidden_size, 1)
        nn.init.normal_(self.last.weight, std=0.02)

    def forward(self, tokens: BatchEncoding) -> Tensor:
        hidden = self.reader(**tokens).last_hidden_state  # (P, T, H)
        there = tokens["attention_mask"][..., None].float()
        return self.last((hidden * there).sum(1) / there.sum(1))[:, 0]  # (P,)


class CrossEncoder:
    """The trained re-ranker."""

    def __init__(self, network: Network, tokenizer, texts: tuple[str, ...], config: Config, weight: float = 1.0):
        self.network, self.tokenizer, self.texts, self.config = network, tokenizer, texts, config
        self.weight = weight

    def tokens(self, history: np.ndarray, candidates: np.ndarray) -> list[tuple[str, str]]:
        """Return the two texts of each pair, the latest item first."""
        latest = self.config.history_items
        used = "; ".join(self.texts[item] for item in history[::-1][:latest])
        ids = self.tokenizer(used, truncation=True, max_length=self.config.history_tokens, add_special_tokens=False)
        used = self.tokenizer.decode(ids["input_ids"])
        return [(used, self.texts[item]) for item in candidates]

    def read(self, pairs: list[tuple[str, str]]) -> Tensor:
        """Return what the network says of pairs of texts. (P,)"""
        tokens = self.tokenizer(
            pairs, padding=True, truncation="only_second", max_length=self.config.max_tokens, return_tensors="pt"
        )
        return self.network(tokens)

    @torch.no_grad()
    def opinion(self, lists: Lists) -> np.ndarray:
        """Return what the network says of each candidate. float32 (B, N)"""
        self.network.eval()
        pairs = zip(lists.histories, lists.candidates, strict=True)
        return np.stack([self.read(self.tokens(*pair)).numpy() for pair in pairs])

    def combined(self, lists: Lists, opinion: np.ndarray, weight: float) -> np.ndarray:
        """Return both scores, each standardised within its list, added up. (B, N)"""
        return standardised(lists.scores) + weight * standardised(opinion)

    def rerank(self, lists: Lists) -> np.ndarray:
        """Return the candidates of each user, best first; ties keep the retriever's order. (B, N)"""
        if not self.weight:
            return lists.candidates
        order = np.argsort(-self.combined(lists, self.opinion(lists), self.weight), axis=1, kind="stable")
        return np.take_along_axis(lists.candidates, order, axis=1)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores with mean 0 and deviation 1 within each row. (B, N)"""
    deviation = np.maximum(scores.std(1, keepdims=True), 1e-6)
    return (scores - scores.mean(1, keepdims=True)) / deviation


def quality(order: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return the ndcg@k of each list. (B,)"""
    return metrics.ndcg_at_k(order == targets[:, None], np.ones(len(targets), int), k)


def fit(lists: Lists, texts: tuple[str, ...], config: Config, seed: int, threads: int) -> CrossEncoder:
    """Train on lists, and choose the weight on some of them that training has not seen.

    Raises:
        CheckFailed: the loss is no longer finite, or no target is among the candidates.
    """
    torch.set_num_threads(threads)
    rng, started = np.random.default_rng(seed), time.perf_counter()
    order = rng.permutation(len(lists))
    judged, learnt = order[: min(config.validation_lists, len(order) // 4)], order[len(order) // 4 :]
    place = (lists.candidates == lists.targets[:, None]).argmax(1)
    found = (lists.candidates == lists.targets[:, None]).any(1)
    learnt = learnt[found[learnt]][: config.lists]
    if not len(learnt) or not len(judged):
        raise CheckFailed("lists that hold what came next", len(learnt), "Ask the retriever for more candidates")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)
        model = CrossEncoder(Network(config.layers), tokenizer, texts, config)
        optimiser = torch.optim.AdamW(model.network.parameters(), lr=config.learning_rate)
        steps, done = config.epochs * -(-len(learnt) // config.batch_size), 0
        for _ in range(config.epochs):
            for batch in np.array_split(rng.permutation(learnt), -(-len(learnt) // config.batch_size)):
                model.network.train()
                optimiser.param_groups[0]["lr"] = config.learning_rate * min(
                    1.0, 10 * (done + 1) / steps, 1 - done / steps
                )
                pairs = []
                for row in batch:
                    others = np.delete(lists.candidates[row], place[row])
                    drawn = rng.choice(others, config.negatives, replace=len(others) < config.negatives)
                    pairs += model.tokens(lists.histories[row], np.append(lists.targets[row], drawn))
                logits = model.read(pairs).view(len(batch), -1)  # (b, 1 + negatives)
                loss = F.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long))
                done += 1
                check_finite(loss.item(), "cross_encoder", done)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
                optimiser.step()
                if done % 20 == 0:
                    log.info(
                        "cross_encoder step %d of %d: %.3f, %.0f s", done, steps, loss, time.perf_counter() - started
                    )
    held_out = lists.rows(judged)
    opinion = model.opinion(held_out)
    reached = {}
    for weight in WEIGHTS:
        by_both = np.argsort(-model.combined(held_out, opinion, weight), axis=1, kind="stable")
        reached[weight] = quality(
            np.take_along_axis(held_out.candidates, by_both, 1), held_out.targets, config.k
        ).mean()
    model.weight = max(WEIGHTS, key=lambda weight: (reached[weight], -weight))
    log.info("cross_encoder: ndcg@%d by weight %s", config.k, {key: round(float(v), 4) for key, v in reached.items()})
    return model
