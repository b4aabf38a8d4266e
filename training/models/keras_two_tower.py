"""Two-tower retrieval in Keras 3 on TensorFlow: a user tower over pooled history and online features.

The history is pooled at several learned speeds of forgetting, joined with the user's features from the feature service
`retrieval_v1` (as they were known at each event: point-in-time), and mixed into the user's vector; an item is its own
vector. Covington, Adams, Sargin 2016, "Deep Neural Networks for YouTube Recommendations"; softmax over the batch's own
targets with the logQ correction: Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations". Plain Keras 3: TensorFlow Recommenders would need the retired tf-keras.

On the validation part of MovieLens 1M (a second temporal split inside train, no features), ndcg@10, popularity alone
.179: one epoch .258, two epochs .280, and .277 since padding is left out, in 41 processor seconds instead of 47. That
was at learning rate .004. On validation items of leave-one-out, recall@10 / ndcg@10, MovieLens 1M by position and
Beauty: .004 .2258 / .1209 and .0324 / .0172, .012 (the choice) .2457 / .1339 and .0609 / .0337, .024 .2406 / .1294 and
.0669 / .0372.

The bundle's encoder is written as an ONNX graph from the weights, operation by operation: the converters from Keras
need packages that hold TensorFlow back.
"""

import logging
import math
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from recsys.artifacts import USER_FEATURES
from training.dataset import TrainingData
from training.model import (
    Between,
    ModelConfig,
    OneOf,
    Parts,
    Workplace,
    as_read,
    batches,
    check_finite,
    filled,
    padded_blocks,
    popularity,
    recency_shift,
    share_done,
    windows,
)

FRAMEWORK = "tensorflow"
FEATURES = USER_FEATURES
STOPS_IN_TIME = True
ONNX_OPSET, ONNX_IR = 18, 9
FEATURE_LIMIT = 5.0
"""Standardised features are clipped here, as the retriever does."""
log = logging.getLogger(__name__)
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "horizon": Between(1, 20, log=True),
    "dropout": Between(0.0, 0.5),
    "learning_rate": Between(0.002, 0.03, log=True),
    "epochs": Between(1, 8, log=True),
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
    """In full windows (training.model.batches)."""
    learning_rate: float = 0.012
    correct_log_q: bool = True
    """As in training/models/two_tower.py."""


class Forgetting(keras.layers.Layer):
    """Pool a history at several speeds: the weight of an item `a` places back is exp(-rate · a).

    (B, L, D) and mask (B, L) → (B, L, H, D), the state after each place, H speeds.
    """

    def __init__(self, speeds: int, **kwargs):
        super().__init__(**kwargs)
        self.speeds = speeds

    def build(self, input_shape):
        first = np.log(np.geomspace(2.0, 0.03, self.speeds))  # from nearly the last item only to all alike
        self.log_rate = self.add_weight(
            name="log_rate", shape=(self.speeds,), initializer=keras.initializers.Constant(first)
        )

    def call(self, vectors, mask):
        place = tf.range(tf.shape(mask)[1])
        age = place[:, None] - place[None]  # (L, L)
        rate = tf.exp(self.log_rate)[:, None, None]  # (H, 1, 1)
        weights = tf.where(age >= 0, tf.exp(-rate * tf.cast(tf.maximum(age, 0), tf.float32)), 0.0)  # (H, L, L)
        pooled = tf.einsum("hts,bsd->bthd", weights, vectors * mask[..., None])
        total = tf.einsum("hts,bs->bth", weights, mask)
        return pooled / tf.maximum(total, 1e-6)[..., None]  # (B, L, H, D)


def user_tower(config: Config, n_features: int) -> keras.Model:
    """Item vectors (B, L, D), mask (B, L) and standardised features (B, L, F) → user vectors (B, L, D)."""
    vectors = keras.Input((None, config.embedding_size), name="vectors")
    mask = keras.Input((None,), name="mask")
    features = keras.Input((None, n_features), name="features")
    pooled = Forgetting(config.speeds, name="forgetting")(vectors, mask)
    pooled = keras.layers.Reshape((-1, config.speeds * config.embedding_size))(pooled)  # (B, L, HD)
    known = keras.layers.Concatenate()([pooled, features])  # (B, L, HD + F)
    known = keras.layers.Dropout(config.dropout)(known)
    hidden = keras.layers.Dense(config.hidden_size, activation="relu", name="hidden")(known)
    hidden = keras.layers.Dropout(config.dropout)(hidden)
    user = keras.layers.Dense(config.embedding_size, name="deep")(hidden)
    user = user + keras.layers.Dense(config.embedding_size, use_bias=False, name="wide")(known)
    return keras.Model([vectors, mask, features], user)


class KerasTwoTower:
    """The trained towers."""

    def __init__(self, tower: keras.Model, items: np.ndarray, bias: np.ndarray, scaling: "Scaling", data, config):
        self.tower, self.scaling, self.config = tower, scaling, config
        self.counts = popularity(data)  # (I,)
        trained = np.bincount(data.items, minlength=data.n_items) > 0
        self.vectors = np.where(trained[:, None], items, np.float32(0))  # (I, D)
        self.bias = np.where(trained, bias, bias[trained].min()) + recency_shift(data)  # (I,)

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        raw = np.full((len(histories), len(FEATURES)), np.nan, np.float32) if user_features is None else user_features
        features, users = self.scaling.apply(raw), np.empty((len(histories), self.vectors.shape[1]), np.float32)
        for rows, latest, mask in padded_blocks(histories, self.config.max_history):
            repeated = np.repeat(features[rows][:, None], latest.shape[1], 1)  # (b, L, F)
            users[rows] = self.tower([self.vectors[latest], mask, repeated], training=False)[:, -1].numpy()
        return users @ self.vectors.T + self.bias  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors, "item_bias": self.bias}
        settings = {
            "max_history": self.config.max_history,
            "user_features": FEATURES,
            "feature_mean": tuple(map(float, self.scaling.mean)),
            "feature_scale": tuple(map(float, self.scaling.scale)),
        }
        return Parts("onnx", arrays, encoder_graph(self.tower, self.vectors, self.config), settings)

    def save_native(self, folder: Path) -> None:
        self.tower.save(folder / "user_tower.keras")
        np.savez(folder / "items.npz", vectors=self.vectors, bias=self.bias)


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
    tower = user_tower(config, len(FEATURES))
    start = rng.normal(0, config.embedding_size**-0.5, (data.n_items, config.embedding_size))
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
    sequences = data.sequences()
    per_epoch = len(batches(windows(sequences, config.max_history, rng)[0], config.batch_size, rng))
    epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
    optimiser = keras.optimizers.Adam(config.learning_rate)
    weights = [items, bias, *tower.trainable_variables]
    optimiser.build(weights)

    @tf.function(reduce_retracing=True)
    def step(present, asked, seen, wanted, correction, mask, learned, features):
        """One batch of N items, `present`; T of them, in rows `asked`, are targets, with corrections (T,).

        P of the B × L places are learned; seen (B, L) are rows of `present`, wanted (P,) of `asked`.
        """
        with tf.GradientTape() as tape:
            vectors = tf.gather(tf.convert_to_tensor(items), present)  # (N, D)
            user = tower([tf.gather(vectors, seen), mask, features], training=True)
            own = tf.gather(tf.convert_to_tensor(bias), tf.gather(present, asked)) + correction
            logits = tf.matmul(tf.boolean_mask(user, learned), tf.gather(vectors, asked), transpose_b=True) + own
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, logits))  # of (P, T)
        optimiser.apply(tape.gradient(loss, weights), weights)
        return loss

    number = 0
    for epoch in range(epochs):
        read = as_read(sequences, data.is_ordered, rng)
        inputs, targets = windows(read, config.max_history, rng, config.horizon)
        losses = []
        for batch in batches(inputs, config.batch_size, rng):
            done = share_done(number / (per_epoch * epochs), workplace)
            if done >= 1:
                break
            optimiser.learning_rate.assign(config.learning_rate * (1 - 0.98 * done))
            read, wanted_rows = filled(inputs, targets, batch)
            rows, mask = np.maximum(read, 0), read >= 0  # (B, L)
            learned = mask & (rng.random(mask.shape) < config.learned_share)
            learned[:, -1] = True  # every window has its last place
            following = data.items[wanted_rows[learned]]  # (P,)
            aims, wanted, times = np.unique(following, return_inverse=True, return_counts=True)  # (T,), (P,), (T,)
            present, places = np.unique(np.concatenate([data.items[rows].ravel(), aims]), return_inverse=True)
            seen, asked = places[: rows.size].reshape(rows.shape), places[rows.size :]
            correction = np.float32(np.log(times) - log_q[aims])  # a target of so many places stands there once
            # The features of a place are those known at its own event, so the next one is still unknown.
            arguments = (present, asked, seen, wanted, correction, np.float32(mask), learned, features[rows])
            loss = float(step(*map(tf.convert_to_tensor, arguments)))
            check_finite(loss, "keras_two_tower", number)
            losses.append(loss)
            number += 1
        log.info("keras_two_tower epoch %d, %d steps: loss %.3f", epoch + 1, number, np.mean(losses or [np.nan]))


def encoder_graph(tower: keras.Model, item_vectors: np.ndarray, config: Config) -> bytes:
    """Return the user tower at the last place as an ONNX model; inputs and output as in recsys/bundle.py."""
    hidden, deep, wide = (tower.get_layer(name) for name in ("hidden", "deep", "wide"))
    constants = {
        "items": item_vectors,  # (I, D)
        "rates": -np.exp(tower.get_layer("forgetting").log_rate.numpy())[None, :, None],  # (1, H, 1)
        "hidden_w": hidden.kernel.numpy(),
        "hidden_b": hidden.bias.numpy(),
        "deep_w": deep.kernel.numpy(),
        "deep_b": deep.bias.numpy(),
        "wide_w": wide.kernel.numpy(),
        "tiny": np.float32(1e-6),
        "one": np.int64(1),
        "minus_one": np.int64(-1),
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "flat": np.array([0, config.speeds * config.embedding_size]),
    }
    operations = [
        ("Gather", ["items", "history"], "vectors", {}),  # (B, L, D)
        ("Shape", ["history"], "length_1", {"start": 1, "end": 2}),
        ("Squeeze", ["length_1"], "length", {}),
        ("Sub", ["length", "one"], "oldest", {}),
        ("Range", ["oldest", "minus_one", "minus_one"], "age", {}),  # (L,): the latest item stands last
        ("Cast", ["age"], "age_float", {"to": TensorProto.FLOAT}),
        ("Mul", ["rates", "age_float"], "exponent", {}),  # (1, H, L)
        ("Exp", ["exponent"], "forgetting", {}),
        ("Unsqueeze", ["mask", "axis_1"], "mask_3", {}),  # (B, 1, L)
        ("Mul", ["forgetting", "mask_3"], "weights", {}),  # (B, H, L)
        ("ReduceSum", ["weights", "axis_2"], "total", {}),  # (B, H, 1)
        ("Max", ["total", "tiny"], "total_safe", {}),
        ("MatMul", ["weights", "vectors"], "sums", {}),  # (B, H, D)
        ("Div", ["sums", "total_safe"], "pooled", {}),
        ("Reshape", ["pooled", "flat"], "pooled_flat", {}),  # (B, HD)
        ("Concat", ["pooled_flat", "user_features"], "known", {"axis": 1}),  # (B, HD + F)
        ("Gemm", ["known", "hidden_w", "hidden_b"], "hidden_linear", {}),
        ("Relu", ["hidden_linear"], "hidden", {}),
        ("Gemm", ["hidden", "deep_w", "deep_b"], "deep", {}),
        ("MatMul", ["known", "wide_w"], "wide", {}),
        ("Add", ["deep", "wide"], "user_vector", {}),  # (B, D)
    ]
    as_float = {
        name: np.float32(value) if np.asarray(value).dtype.kind == "f" else value for name, value in constants.items()
    }
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **more) for kind, inputs, output, more in operations],
        "user_tower",
        [
            helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", "length"]),
            helper.make_tensor_value_info("user_features", TensorProto.FLOAT, ["batch", len(FEATURES)]),
        ],
        [helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["batch", config.embedding_size])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in as_float.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", ONNX_OPSET)], ir_version=ONNX_IR)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
