"""DCN-v2 in Keras 3 on TensorFlow: explicit crosses of features beside a deep network.

Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi 2021, "DCN V2: Improved Deep & Cross Network". A cross layer is
x' = x0 ∘ (W x + b) + x: after l of them the inputs have met each other up to the power l + 1. Cross and deep part read
the same input side by side, and one last layer reads both (the paper's parallel structure).
"""

import keras

from training import keras_ranker
from training.keras_ranker import Graph, KerasRanker, KerasRankerConfig
from training.ranker import Examples

FRAMEWORK = "tensorflow"


class Config(KerasRankerConfig):
    crosses: int = 2


def network(n_inputs: int, config: Config) -> keras.Model:
    """Flat inputs (n, X) → logits (n, 1)."""
    given = keras.Input((n_inputs,))
    crossed = keras.layers.Dropout(config.dropout)(given)
    deep = start = crossed
    for number in range(config.crosses):
        crossed = start * keras.layers.Dense(n_inputs, name=f"cross_{number}")(crossed) + crossed
    for number, width in enumerate(config.layers):
        deep = keras.layers.Dense(width, activation="relu", name=f"deep_{number}")(deep)
        deep = keras.layers.Dropout(config.dropout)(deep)
    both = keras.layers.Concatenate()([crossed, deep])
    return keras.Model(given, keras.layers.Dense(1, name="logit")(both))


def fit(train: Examples, validation: Examples, config: Config, seed: int, threads: int) -> KerasRanker:
    """Train DCN-v2.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    made: list[keras.Model] = []

    def build(n_inputs: int) -> keras.Model:
        made.append(network(n_inputs, config))
        return made[0]

    def tail(graph: Graph, inputs: str) -> str:
        crossed = deep = inputs
        for number in range(config.crosses):
            mixed = graph.dense(made[0].get_layer(f"cross_{number}"), crossed)
            met = graph.add("Mul", [inputs, mixed], f"met_{number}")
            crossed = graph.add("Add", [met, crossed], f"crossed_{number}")
        for number in range(len(config.layers)):
            deep = graph.dense(made[0].get_layer(f"deep_{number}"), deep)
        last, width = made[0].get_layer("logit"), made[0].input_shape[-1]
        weights = {"logit_of_deep": last.kernel.numpy()[width:], "logit_of_crossed": last.kernel.numpy()[:width]}
        for name, value in (*weights.items(), ("logit_b", last.bias.numpy())):
            graph.constant(name, value)
        deep = graph.add("Gemm", [deep, "logit_of_deep", "logit_b"], "deep_logit")
        return graph.add("Gemm", [crossed, "logit_of_crossed", deep], "logit")  # of both, without joining them

    return keras_ranker.fit(build, tail, train, validation, config, seed, threads)
