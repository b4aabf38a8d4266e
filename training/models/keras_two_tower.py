"""Two-tower retrieval in Keras 3 on TensorFlow: a user tower over pooled history and online features.

The history is pooled at several learned speeds of forgetting, joined with the user's features from the feature service
`retrieval_v1` (as they were known at each event: point-in-time), and mixed into the user's vector; an item is its own
vector. Covington, Adams, Sargin 2016, "Deep Neural Networks for YouTube Recommendations"; softmax over the batch's own
targets with the logQ correction: Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations". Where the order of events means nothing, the tower reads the mean of a part of a user's set and has to
find the rest (training/sets.py). Plain Keras 3: TensorFlow Recommenders would need the retired tf-keras.

On the validation part of MovieLens 1M (a second temporal split inside train, no features), ndcg@10, popularity alone
.179: one epoch .258, two epochs .280, and .277 since padding is left out, in 41 processor seconds instead of 47. That
was at learning rate .004. On validation items of leave-one-out after two epochs, recall@10 / ndcg@10, MovieLens 1M by
position and Beauty: .004 .2258 / .1209 and .0324 / .0172, .012 (the choice) .2457 / .1339 and .0609 / .0337, .024
.2406 / .1294 and .0669 / .0372.
Short histories, Beauty's validation items (bench/two_towers.py): .0974 / .0618 in 67 processor seconds while a target
was held against all of the batch's own and 1000 even draws, in batches a third as large, with three speeds and 128
hidden units; .0989 / .0618 in 18 since it is held against 400 of the batch's own. In batches of 40: against 256 .0976
/ .0621, 512 .0989 / .0630, all of them .0986 / .0633; 400 with three speeds and 128 hidden units .0972 / .0611.
Sets, on a fifth of UltraGCN's MovieLens 1M, recall@20 / ndcg@20: twenty epochs .2144 / .2495, thirty .2211 / .2567
(the choice), at dropout .6 .2169 / .2531.
"""

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recsys.artifacts import USER_FEATURES
from training.candidates import draw
from training.dataset import TrainingData
from training.keras_graph import encoder_graph
from training.keras_layers import Forgetting, Thinning
from training.model import (
    Between,
    ModelConfig,
    OneOf,
    Parts,
    Workplace,
    batches,
    check_finite,
    filled,
    padded_blocks,
    popularity,
    recency_shift,
    share_done,
    windows,
)
from training.sets import MAX_HISTORY, Sets

FRAMEWORK = "tensorflow"
FEATURES = USER_FEATURES
STOPS_IN_TIME = True
EPSILON = 1e-5
FEATURE_LIMIT = 5.0
"""Standardised features are clipped here, as the retriever does."""
log = logging.getLogger(__name__)
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "horizon": Between(1, 20, log=True),
    "dropout": Between(0.0, 0.6),
    "learning_rate": Between(0.002, 0.03, log=True),
    "epochs": Between(1, 30, log=True),
    "negatives": OneOf((0, 1000, 4000)),
    "temperature": OneOf((0.0, 0.05, 0.06, 0.08)),
}


class Config(ModelConfig):
    embedding_size: int = 64
    speeds: int = 3
    hidden_size: int = 128
    max_history: int = 50
    horizon: int = 5
    dropout: float = 0.2
    learned_share: float = 0.5
    epochs: int = 2
    min_steps: int = 100
    batch_size: int = 30
    """In full windows (training.model.batches); in users where the order of events means nothing."""
    learning_rate: float = 0.012
    reg: float = 0.0
    temperature: float = 0.0
    negatives: int = 0
    user_exponent: float = 0.5
    correct_log_q: bool = True
    """These five as in training/models/two_tower.py."""
    in_batch_negatives: int = 0
    """At most so many of the batch's own targets are what a target is held against, drawn evenly; zero: all."""


SHORT_HISTORIES = {
    "speeds": 2, "hidden_size": 64, "horizon": 1, "dropout": 0.3, "learned_share": 1.0, "epochs": 15, "batch_size": 60,
    "learning_rate": 0.006, "temperature": 0.06, "in_batch_negatives": 400,
}  # fmt: skip
SETS = {"epochs": 30, "batch_size": 400, "learning_rate": 0.02, "dropout": 0.5, "reg": 0.1, "negatives": 4000}
TRIALS = (SHORT_HISTORIES, {}, {"epochs": 6})
"""For the benchmark: what Beauty's short histories want, then what MovieLens' long ones want."""
TRIALS_OF_SETS = (SETS, SETS | {"embedding_size": 128}, SETS | {"epochs": 60, "dropout": 0.6})


def user_tower(config: Config, is_ordered: bool) -> keras.Model:
    """Item vectors (B, L, D), mask (B, L) and standardised features (B, L, F) → user vectors (B, L, D).

    Where the order of events means nothing, the features do not either: the vectors' mean (B, D) → (B, D).
    """
    if is_ordered:
        vectors = keras.Input((None, config.embedding_size), name="vectors")
        mask = keras.Input((None,), name="mask")
        features = keras.Input((None, len(FEATURES)), name="features")
        pooled = Forgetting(config.speeds, name="forgetting")(vectors, mask)  # (B, L, HD)
        known = keras.layers.Concatenate()([pooled, features])  # (B, L, HD + F)
        known = seen = Thinning(config.dropout)(known)
        inputs, start = [vectors, mask, features], "glorot_uniform"
    else:
        known = keras.Input((config.embedding_size,), name="mean")
        seen = keras.layers.LayerNormalization(epsilon=EPSILON, name="before")(known)
        inputs, start = known, "identity"
    hidden = keras.layers.Dense(config.hidden_size, activation="relu", name="hidden")(seen)
    hidden = Thinning(config.dropout)(hidden)
    user = keras.layers.Dense(config.embedding_size, name="deep")(hidden)
    user = user + keras.layers.Dense(config.embedding_size, use_bias=False, kernel_initializer=start, name="wide")(
        known
    )
    if config.temperature:
        user = keras.layers.UnitNormalization()(user) * config.temperature**-0.5
    return keras.Model(inputs, user)


def scaled(vectors: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return vectors whose product is their cosine over the temperature; as they are where it is zero. (..., D)"""
    return tf.math.l2_normalize(vectors, -1) * temperature**-0.5 if temperature else vectors


class KerasTwoTower:
    """The trained towers."""

    def __init__(self, tower: keras.Model, items: np.ndarray, bias: np.ndarray, scaling: "Scaling", data, config):
        self.tower, self.scaling, self.config, self.is_ordered = tower, scaling, config, data.is_ordered
        self.counts = popularity(data)  # (I,)
        trained = np.bincount(data.items, minlength=data.n_items) > 0
        self.read = np.where(trained[:, None], items, np.float32(0))  # (I, D): what a history is made of
        self.vectors = scaled(
            tf.constant(self.read), config.temperature
        ).numpy()  # (I, D): what a user is compared with
        self.bias = np.where(trained, bias, bias[trained].min()) + recency_shift(data)  # (I,)
        self.max_history = config.max_history if data.is_ordered else MAX_HISTORY

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        raw = np.full((len(histories), len(FEATURES)), np.nan, np.float32) if user_features is None else user_features
        if not self.is_ordered:
            means = np.stack([self.read[history[-self.max_history :]].mean(0) for history in histories])  # (B, D)
            return self.tower(means, training=False).numpy() @ self.vectors.T + self.bias  # (B, I)
        features = self.scaling.apply(raw)
        users = np.empty((len(histories), self.vectors.shape[1]), np.float32)
        for rows, latest, mask in padded_blocks(histories, self.max_history):
            repeated = np.repeat(features[rows][:, None], latest.shape[1], 1)  # (b, L, F)
            users[rows] = self.tower([self.read[latest], mask, repeated], training=False)[:, -1].numpy()
        return users @ self.vectors.T + self.bias  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors, "item_bias": self.bias}
        settings = {
            "max_history": self.max_history,
            "user_features": FEATURES,
            "feature_mean": tuple(map(float, self.scaling.mean)),
            "feature_scale": tuple(map(float, self.scaling.scale)),
        }
        return Parts(
            "onnx", arrays, encoder_graph(self.tower, self.read, self.config.temperature, self.is_ordered), settings
        )

    def save_native(self, folder: Path) -> None:
        self.tower.save(folder / "user_tower.keras")
        np.savez(folder / "items.npz", vectors=self.read, bias=self.bias)


class Scaling:
    """Standardises features as the retriever does; an unknown one counts as the mean."""

    def __init__(self, features: np.ndarray):
        known = np.isfinite(features)
        counts = np.maximum(known.sum(0), 1)
        filled = np.where(known, features, 0).astype(np.float64)
        self.mean = filled.sum(0) / counts  # (F,)
        deviation = np.sqrt((np.where(known, features - self.mean, 0.0) ** 2).sum(0) / counts)
        self.scale = np.where(deviation > 0, deviation, 1.0)  # (F,)

    def apply(self, features: np.ndarray) -> np.ndarray:
        scaled = np.nan_to_num((features - self.mean) / self.scale, nan=0.0)
        return np.clip(scaled, -FEATURE_LIMIT, FEATURE_LIMIT).astype(np.float32)


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Return about the processor seconds of a fit: measured on one core."""
    return 4 + config.epochs * len(data.items) / (60_000 if data.is_ordered else 300_000)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> KerasTwoTower:
    """Train both towers together. Without features in the data they all count as unknown.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    set_threads(workplace.threads)
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    raw = data.user_features
    if raw is None:
        raw = np.full((len(data.items), len(FEATURES)), np.nan, np.float32)
    scaling = Scaling(raw)
    tower = user_tower(config, data.is_ordered)
    spread = 0.02 if config.temperature else config.embedding_size**-0.5  # a cosine turns small vectors sooner
    start = rng.normal(0, spread, (data.n_items, config.embedding_size))
    items = keras.Variable(start, dtype="float32", name="items")  # (I, D)
    bias = keras.Variable(np.zeros(data.n_items), dtype="float32", name="bias")  # (I,)
    train(tower, items, bias, data, scaling.apply(raw), config, rng, workplace)
    return KerasTwoTower(tower, items.numpy(), bias.numpy(), scaling, data, config)


def set_threads(threads: int) -> None:
    """Bound TensorFlow's threads; it accepts this once a process, before its first operation."""
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def train(tower, items, bias, data: TrainingData, features: np.ndarray, config: Config, rng, workplace) -> None:
    """Train for the configured epochs, or for as long as the workplace allows, whichever ends first."""
    frequency = np.bincount(data.items, minlength=data.n_items) / len(data.items)
    log_q = np.log(np.maximum(frequency, 1e-12)) * config.correct_log_q  # (I,)
    # The logQ correction takes popularity off, so that it is the bias that training starts from.
    bias.assign(np.maximum(log_q - log_q[frequency > 0].min(), 0))
    optimiser = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.reg)
    weights = [items, bias, *tower.trainable_variables]
    optimiser.build(weights)
    if data.is_ordered:
        loss_of, per_epoch, batches_of = of_windows(tower, items, bias, data, features, frequency, config, rng)
    else:
        loss_of, per_epoch, batches_of = of_sets(tower, items, bias, data, config, rng)

    def taken(*batch):
        with tf.GradientTape() as tape:
            loss = loss_of(*batch)
        optimiser.apply(tape.gradient(loss, weights), weights)
        return loss

    step = tf.function(taken, input_signature=[shape_of(part) for part in next(batches_of())])  # traced once
    epochs, number = max(config.epochs, math.ceil(config.min_steps / per_epoch)), 0
    for epoch in range(epochs):
        losses = []
        for batch in batches_of():
            done = share_done(number / (per_epoch * epochs), workplace)
            if done >= 1:
                log.warning("keras_two_tower stops in epoch %d of %d: its time is over", epoch + 1, epochs)
                return
            rising = (number + 1) / min(100, 0.1 * per_epoch * epochs)
            optimiser.learning_rate.assign(config.learning_rate * min(1, rising, max(0.02, 1 - done)))
            loss = float(step(*map(tf.convert_to_tensor, batch)))
            check_finite(loss, "keras_two_tower", number)
            losses.append(loss)
            number += 1
        log.info("keras_two_tower epoch %d, %d steps: loss %.3f", epoch + 1, number, np.mean(losses or [np.nan]))


def shape_of(part: np.ndarray) -> tf.TensorSpec:
    """Return what batches have in common with this part of one: all but how many they hold, features excepted."""
    return tf.TensorSpec([None] * part.ndim if part.ndim < 3 else [None, None, part.shape[2]], part.dtype)


Task = tuple[Callable[..., tf.Tensor], int, Callable[[], Iterator[tuple[np.ndarray, ...]]]]
"""The loss of a batch, batches of an epoch, and what yields them."""


def of_windows(tower, items, bias, data: TrainingData, features: np.ndarray, share, config: Config, rng) -> Task:
    """At every place of a history one of the next events is to be found among the batch's targets."""
    sequences = data.sequences()

    def loss_of(present, asked, seen, aimed, correction, inside, mask, learned, features):
        """One batch of N items, `present`; T of them, in rows `asked`, are candidates, with corrections (T,).

        Of the B × L places those in `learned` (P,) are; seen (B, L) and aimed (P,), what they read and their targets,
        are rows of `present`. A target counts once, as what it is: `inside` (P,) puts right what of it is among the
        candidates, 1 where it is not one of them.
        """
        vectors = tf.gather(tf.convert_to_tensor(items), present)  # (N, D)
        biases = tf.gather(tf.convert_to_tensor(bias), present)  # (N,)
        user = tower([tf.gather(vectors, seen), mask, features], training=True)
        user = tf.gather(tf.reshape(user, (-1, config.embedding_size)), learned)  # (P, D)
        compared = scaled(vectors, config.temperature)  # (N, D)
        logits = tf.matmul(user, tf.gather(compared, asked), transpose_b=True)  # (P, T)
        own = tf.reduce_sum(user * tf.gather(compared, aimed), 1)  # (P,)
        if config.temperature:
            highest = 1 / config.temperature
        else:
            highest = tf.stop_gradient(tf.maximum(tf.reduce_max(logits, 1), own))[:, None]
        weights, own = tf.exp(logits - highest), own - tf.reshape(highest, (-1,))
        own_bias = tf.gather(biases, aimed)
        total = tf.linalg.matvec(weights, tf.exp(tf.gather(biases, asked) + correction))  # (P,)
        return tf.reduce_mean(tf.math.log(total + inside * tf.exp(own + own_bias)) - own - own_bias)

    def batches_of() -> Iterator[tuple[np.ndarray, ...]]:
        inputs, targets = windows(sequences, config.max_history, rng, config.horizon)
        for batch in batches(inputs, config.batch_size, rng):
            read, wanted_rows = filled(inputs, targets, batch)
            rows, mask = np.maximum(read, 0), read >= 0  # (B, L)
            is_learned = mask & (rng.random(mask.shape) < config.learned_share)
            is_learned[:, -1] = True  # every window has its last place
            wanted = data.items[wanted_rows[is_learned]]  # (P,)
            compared = rng.permutation(wanted)[: config.in_batch_negatives or None]
            candidates, _, log_probability = draw(compared, share, config.negatives, rng)
            correction = -log_probability * np.float32(config.correct_log_q)
            raised = np.zeros(data.n_items, np.float32)
            raised[candidates] = np.exp(correction)
            known = [data.items[rows].ravel(), wanted, candidates]
            present, places = np.unique(np.concatenate(known), return_inverse=True)
            seen, aimed, asked = np.split(places, np.cumsum([len(part) for part in known[:-1]]))
            # The features of a place are those known at its own event, so the next one is still unknown.
            yield (
                present, asked, seen.reshape(rows.shape), aimed, correction, 1 - raised[wanted], np.float32(mask),
                np.flatnonzero(is_learned), features[rows],
            )  # fmt: skip

    return loss_of, len(batches(windows(sequences, config.max_history, rng)[0], config.batch_size, rng)), batches_of


def of_sets(tower, items, bias, data: TrainingData, config: Config, rng) -> Task:
    """Each user's vector, from a part of the set, has to find all items of the rest (training/sets.py)."""
    sets = Sets(data, config.user_exponent)

    def loss_of(read, reader, count, candidates, correction, asked, wanted, weight):
        """B users: items `read` by the users in places `reader` (R,), `count` of each (B, 1); rows `wanted` of the
        candidates (N,) are asked for by the users in places `asked` (P,)."""
        table = tf.convert_to_tensor(items)
        mean = tf.math.unsorted_segment_sum(tf.gather(table, read), reader, tf.shape(count)[0]) / count  # (B, D)
        user = tower(mean, training=True)
        compared = scaled(tf.gather(table, candidates), config.temperature)
        logits = tf.matmul(user, compared, transpose_b=True) + tf.gather(tf.convert_to_tensor(bias), candidates)
        total = tf.reduce_logsumexp(logits + correction, 1)  # (B,)
        own = tf.gather_nd(logits, tf.stack([asked, wanted], 1))  # (P,)
        return tf.reduce_sum(weight * (tf.gather(total, asked) - own))

    def batches_of() -> Iterator[tuple[np.ndarray, ...]]:
        for batch in sets.epoch(config.batch_size, rng):
            kept = rng.random(len(batch.read)) >= config.dropout
            count = np.bincount(batch.reader, minlength=batch.users)[:, None] * (1 - config.dropout)
            candidates, wanted, log_probability = draw(batch.targets, sets.share, config.negatives, rng)
            correction = -log_probability * np.float32(config.correct_log_q)
            yield (
                batch.read[kept], batch.reader[kept], np.float32(count), candidates, correction, batch.asked, wanted,
                batch.weight,
            )  # fmt: skip

    return loss_of, sets.steps(config.batch_size), batches_of
