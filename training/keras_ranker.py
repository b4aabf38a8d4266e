"""What the Keras rankers have in common: vectors of categories, the training loop, and the way to ONNX.

A ranker is a `keras.Model` from one flat input, (n, X): the mean of each category's vectors and the standardised
numbers. The vectors are taken out of it, since they are what overfits: they have a decay of their own. The loop ends
where the validation's log loss no longer falls and keeps the weights of then. Shapes as in training/ranker.py; D
dimensions of a category's vector.
"""

import logging

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from recsys.errors import RecsysError
from training.model import ModelConfig, check_finite
from training.models.keras_two_tower import set_threads
from training.ranker import LIMIT, Examples, Scaling, known, log_loss, platt

ONNX_OPSET, ONNX_IR = 18, 9
SCORED_AT_ONCE = 65_536
LARGEST_LOGIT = 15.0
"""Beyond it a probability in float32 is none or one."""
log = logging.getLogger(__name__)


class KerasRankerConfig(ModelConfig):
    """What every Keras ranker's training needs to know."""

    embedding_size: int = 16
    layers: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    epochs: int = 12
    """At most."""
    patience: int = 1
    """Epochs without a better validation after which it ends."""
    batch_size: int = 2048
    learning_rate: float = 0.002
    vector_reg: float = 1e-5
    """Weight of the squares of the vectors that a batch reads, summed over an example's."""


class Graph:
    """Builds an ONNX model operation by operation."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, name: str, value) -> str:
        array = np.asarray(value)
        self.constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def dense(self, layer: keras.layers.Dense, given: str) -> str:
        """Append a dense layer with its activation (none, relu or sigmoid)."""
        name = layer.name
        weights = [self.constant(f"{name}_w", layer.kernel.numpy())]
        weights += [self.constant(f"{name}_b", layer.bias.numpy())] if layer.use_bias else []
        linear = self.add("Gemm", [given, *weights], f"{name}_linear")
        kind = {"linear": None, "relu": "Relu", "sigmoid": "Sigmoid"}[keras.activations.serialize(layer.activation)]
        return self.add(kind, [linear], f"{name}_out") if kind else linear

    def serialized(self, n_user: int, n_item: int) -> bytes:
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "ranker",
                [
                    helper.make_tensor_value_info("user_features", TensorProto.FLOAT, [1, n_user]),
                    helper.make_tensor_value_info("item_features", TensorProto.FLOAT, ["n", n_item]),
                ],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("scores", "logits")],
                [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", ONNX_OPSET)],
            ir_version=ONNX_IR,
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def standardised(graph: Graph, scaling: Scaling, n_user: int) -> str:
    """Append the join of user_features (1, U) and item_features (n, I) and what `Scaling.apply` does. → (n, F)

    A feature is a row of n numbers meanwhile: what holds for all of them is then said once a row and not once a number.
    """
    n_item = len(scaling.mean) - n_user
    graph.constant("n_user", np.array([n_user]))
    graph.add("Shape", ["item_features"], "n", start=0, end=1)
    graph.add("Concat", ["n_user", "n"], "user_shape", axis=0)
    graph.add("Transpose", ["user_features"], "user_column")
    graph.add("Expand", ["user_column", "user_shape"], "user_rows")
    graph.add("Transpose", ["item_features"], "item_rows")
    graph.add("Concat", ["user_rows", "item_rows"], "raw", axis=0)  # (F, n)
    for name, value in (("is_count", scaling.is_count), ("mean", scaling.mean), ("scale", scaling.scale)):
        graph.constant(name, value[:, None])
    for name, value in (("zero", 0.0), ("one", 1.0), ("low", -LIMIT), ("high", LIMIT)):
        graph.constant(name, np.float32(value))
    graph.add("IsNaN", ["raw"], "is_unknown")
    graph.add("Max", ["raw", "zero"], "at_least_zero")
    graph.add("Add", ["at_least_zero", "one"], "plus_one")
    graph.add("Log", ["plus_one"], "logarithm")
    graph.add("Where", ["is_count", "logarithm", "raw"], "read")
    graph.add("Sub", ["read", "mean"], "centred")
    graph.add("Div", ["centred", "scale"], "scaled")
    graph.add("Where", ["is_unknown", "zero", "scaled"], "known")
    assert n_item > 0
    graph.add("Clip", ["known", "low", "high"], "clipped")
    return graph.add("Transpose", ["clipped"], "inputs")


class KerasRanker:
    """A trained ranker: vectors, scaling and the network behind them."""

    def __init__(self, network: keras.Model, tables: dict[str, keras.Variable], scaling: Scaling, tail):
        """`tail(graph, inputs) -> output` writes the network into an ONNX graph, (n, F) → logits (n, 1)."""
        self.network, self.tables, self.scaling, self.tail = network, tables, scaling, tail
        self.slope, self.offset = 1.0, 0.0

    def calibrate(self, validation: Examples) -> None:
        """Move and stretch the logits so that they say the validation's shares (Platt 1999): a network that fits its
        training is too sure of itself elsewhere. The order of examples stays."""
        self.slope, self.offset = platt(self.logits(validation), validation.labels)

    def predict(self, examples: Examples) -> np.ndarray:
        return 1 / (1 + np.exp(-(np.float32(self.slope) * self.logits(examples) + np.float32(self.offset))))

    def logits(self, examples: Examples) -> np.ndarray:
        """Return what the network says. float32 (n,)"""
        numbers, parts = self.scaling.apply(examples.numbers), []
        for start in range(0, len(examples), SCORED_AT_ONCE):
            rows = slice(start, start + SCORED_AT_ONCE)
            codes = {
                name: tf.constant(known(examples.categories[name][rows], table.shape[0]))
                for name, table in self.tables.items()
            }
            flat, _ = flatten(self.tables, codes, tf.constant(numbers[rows]))
            parts.append(self.network(flat, training=False)[:, 0].numpy())
        return np.concatenate(parts)

    def to_onnx(self, n_user: int) -> bytes:
        if self.tables:
            raise RecsysError("ranker", f"reads {', '.join(self.tables)}", "Serving has numbers only; train on those")
        graph = Graph()
        logits = self.tail(graph, standardised(graph, self.scaling, n_user))
        graph.add("Mul", [logits, graph.constant("slope", np.float32(self.slope))], "stretched")
        graph.add("Add", ["stretched", graph.constant("offset", np.float32(self.offset))], "calibrated")
        for name, value in (("least", -LARGEST_LOGIT), ("most", LARGEST_LOGIT)):
            graph.constant(name, np.float32(value))
        graph.add("Clip", ["calibrated", "least", "most"], "bounded")
        graph.constant("flat", np.array([-1]))
        graph.add("Reshape", ["bounded", "flat"], "logits")
        graph.add("Sigmoid", ["logits"], "scores")
        return graph.serialized(n_user, len(self.scaling.mean) - n_user)


def flatten(tables, codes, numbers):
    """Return a network's input, (n, X), and the sum of the squares of the vectors in it."""
    parts, squares = [numbers], 0.0
    for name, table in tables.items():
        vectors = tf.gather(tf.convert_to_tensor(table), codes[name])  # (n, D) or (n, M, D)
        if len(vectors.shape) == 3:
            there = tf.cast(codes[name] > 0, tf.float32)[..., None]  # (n, M, 1)
            vectors = tf.reduce_sum(vectors * there, 1) / tf.maximum(tf.reduce_sum(there, 1), 1.0)
        squares += tf.reduce_sum(vectors**2)
        parts.append(vectors)
    return tf.concat(parts, 1), squares


def fit(build, tail, train: Examples, validation: Examples, config: KerasRankerConfig, seed: int, threads: int):
    """Train a ranker. `build(n_inputs) -> keras.Model` makes its network, `tail` writes it as ONNX.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    set_threads(threads)
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    scaling = Scaling(train.numbers)
    tables = {}
    for name, codes in train.categories.items():
        count = 1 + max(int(codes.max()), int(validation.categories[name].max()))
        start = rng.normal(0, 0.01, (count, config.embedding_size))
        tables[name] = keras.Variable(start, dtype="float32", name=name)
    network = build(train.numbers.shape[1] + len(tables) * config.embedding_size)
    weights = [*tables.values(), *network.trainable_variables]
    optimiser = keras.optimizers.Adam(config.learning_rate)
    optimiser.build(weights)

    @tf.function(reduce_retracing=True)
    def step(codes, numbers, labels):
        with tf.GradientTape() as tape:
            flat, squares = flatten(tables, codes, numbers)
            logits = network(flat, training=True)[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
            whole = loss + config.vector_reg * squares / tf.cast(tf.shape(labels)[0], tf.float32)
        optimiser.apply(tape.gradient(whole, weights), weights)
        return loss

    numbers, best, kept, waited, done = scaling.apply(train.numbers), np.inf, None, 0, 0
    ranker = KerasRanker(network, tables, scaling, tail)
    for epoch in range(config.epochs):
        optimiser.learning_rate.assign(config.learning_rate * (1 - epoch / config.epochs))
        order, losses = rng.permutation(len(train)), []
        for rows in np.array_split(order, max(1, len(order) // config.batch_size)):
            codes = {name: tf.constant(train.categories[name][rows]) for name in tables}
            losses.append(float(step(codes, tf.constant(numbers[rows]), tf.constant(train.labels[rows]))))
            done += 1
            check_finite(losses[-1], "the ranker", done)
        judged = log_loss(ranker.predict(validation), validation.labels)
        log.info("ranker epoch %d: loss %.4f, validation %.4f", epoch + 1, np.mean(losses), judged)
        if judged < best:
            best, kept, waited = judged, [weight.numpy() for weight in weights], 0
        else:
            waited += 1
            if waited > config.patience:
                break
    for weight, value in zip(weights, kept, strict=True):
        weight.assign(value)
    ranker.calibrate(validation)
    return ranker
