"""Layers that Keras lacks, or is slow at on a processor: what training/models/keras_two_tower.py is made of."""

import keras
import numpy as np
import tensorflow as tf


class Forgetting(keras.layers.Layer):
    """Pool a history at several speeds: the weight of an item `a` places back is exp(-rate · a).

    (B, L, D) and mask (B, L) → (B, L, HD), the state after each place, H speeds.
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
        length, size = tf.shape(mask)[1], vectors.shape[-1]
        place = tf.range(length)
        age = (place[:, None] - place[None])[:, None]  # (L, 1, L)
        rate = tf.exp(self.log_rate)[:, None]  # (H, 1)
        weights = tf.where(age >= 0, tf.exp(-rate * tf.cast(tf.maximum(age, 0), tf.float32)), 0.0)  # (L, H, L)
        weights *= mask[:, None, None]  # (B, L, H, L)
        weights /= tf.maximum(tf.reduce_sum(weights, -1, keepdims=True), 1e-6)
        pooled = tf.matmul(tf.reshape(weights, (-1, length * self.speeds, length)), vectors)  # (B, LH, D)
        return tf.reshape(pooled, (-1, length, self.speeds * size))


class Thinning(keras.layers.Layer):
    """Dropout to the nearest 256th: a random byte a value, where Keras' own takes four."""

    def __init__(self, share: float, **kwargs):
        super().__init__(**kwargs)
        self.dropped = round(256 * share)
        self.seeds = keras.random.SeedGenerator()

    def call(self, values, training=False):
        if not training or not self.dropped:
            return values
        size = tf.size(values)
        words = tf.random.stateless_uniform((size // 4 + 1,), self.seeds.next(), None, None, tf.int32, alg="philox")
        kept = tf.reshape(tf.bitcast(words, tf.uint8), (-1,))[:size] >= self.dropped
        return values * tf.reshape(tf.cast(kept, tf.float32) * (256 / (256 - self.dropped)), tf.shape(values))
