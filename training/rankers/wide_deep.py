"""Wide & Deep in Keras 3 on TensorFlow: a linear model that remembers beside a deep network that generalises.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems". The wide part is linear in the same inputs that the
deep part reads, the vectors of the categories among them, and in the products of all pairs of categories' vectors in
place of the paper's hand-picked crosses (Guo et al. 2017, "DeepFM"): nobody has to know beforehand which pairs matter.
Both parts add up to one logit and learn together.
"""

import keras
import tensorflow as tf

from training import keras_ranker
from training.keras_ranker import Graph, KerasRanker, KerasRankerConfig
from training.ranker import Examples

FRAMEWORK = "tensorflow"


class Config(KerasRankerConfig):
    """As in training/keras_ranker.py."""


class Pairs(keras.layers.Layer):
    """Sum of the dot products of all pairs of vectors: half of |Σ v|² - Σ |v|². (n, X) → (n, 1)"""

    def __init__(self, n_numbers: int, size: int, **kwargs):
        super().__init__(**kwargs)
        self.n_numbers, self.size = n_numbers, size

    def call(self, given):
        vectors = tf.reshape(given[:, self.n_numbers :], (tf.shape(given)[0], -1, self.size))  # (n, C, D)
        both = tf.reduce_sum(tf.reduce_sum(vectors, 1) ** 2, 1) - tf.reduce_sum(vectors**2, (1, 2))
        return 0.5 * both[:, None]


def network(n_inputs: int, n_numbers: int, config: Config) -> keras.Model:
    """Flat inputs (n, X) → logits (n, 1)."""
    given = keras.Input((n_inputs,))
    deep = kept = keras.layers.Dropout(config.dropout)(given)
    for number, width in enumerate(config.layers):
        deep = keras.layers.Dense(width, activation="relu", name=f"deep_{number}")(deep)
        deep = keras.layers.Dropout(config.dropout)(deep)
    logit = keras.layers.Dense(1, name="deep_logit")(deep) + keras.layers.Dense(1, name="wide")(kept)
    if n_inputs > n_numbers:
        logit = logit + Pairs(n_numbers, config.embedding_size)(kept)
    return keras.Model(given, logit)


def fit(train: Examples, validation: Examples, config: Config, seed: int, threads: int) -> KerasRanker:
    """Train Wide & Deep.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    made: list[keras.Model] = []

    def build(n_inputs: int) -> keras.Model:
        made.append(network(n_inputs, train.numbers.shape[1], config))
        return made[0]

    def tail(graph: Graph, inputs: str) -> str:
        deep = inputs
        for number in range(len(config.layers)):
            deep = graph.dense(made[0].get_layer(f"deep_{number}"), deep)
        parts = [graph.dense(made[0].get_layer("deep_logit"), deep), graph.dense(made[0].get_layer("wide"), inputs)]
        return graph.add("Add", parts, "logit_sum")

    return keras_ranker.fit(build, tail, train, validation, config, seed, threads)
