"""Popularity with decay: everybody gets what was used most, lately. The baseline that every other model must beat.

Ji, Sun, Zhang, Li 2020, "A Re-visit of the Popularity Baseline in Recommender Systems": a baseline that forgets is far
stronger than one that counts all of the past alike.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.dataset import TrainingData
from training.model import POPULARITY_HALF_LIFE_DAYS, Between, ModelConfig, Parts, Workplace, popularity

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
SPACE = {"half_life_days": Between(7.0, 5000.0, log=True)}


class Config(ModelConfig):
    half_life_days: float = POPULARITY_HALF_LIFE_DAYS


@dataclass(frozen=True)
class Popularity:
    counts: np.ndarray  # (I,)

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return np.tile(self.counts, (len(histories), 1))  # (B, I)

    def parts(self) -> Parts:
        return Parts("popularity", {"popularity": self.counts})

    def save_native(self, folder: Path) -> None:
        np.save(folder / "popularity.npy", self.counts)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Popularity:
    """Count. Nothing is random: every seed gives the same."""
    return Popularity(popularity(data, config.half_life_days))
