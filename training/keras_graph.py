"""The user tower of training/models/keras_two_tower.py at the last place of a history, as an ONNX graph.

Written from the weights, operation by operation: the converters from Keras need packages that hold TensorFlow back.
"""

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recsys.artifacts import USER_FEATURES

ONNX_OPSET, ONNX_IR = 18, 9


def encoder_graph(tower: keras.Model, item_vectors: np.ndarray, temperature: float, is_ordered: bool) -> bytes:
    """Return the user tower at the last place as an ONNX model; inputs and output as in recsys/bundle.py."""
    hidden, deep, wide = (tower.get_layer(name) for name in ("hidden", "deep", "wide"))
    rates = -np.exp(tower.get_layer("forgetting").log_rate.numpy()) if is_ordered else np.zeros(1)  # zero: the mean
    constants = {
        "items": item_vectors,  # (I, D)
        "rates": rates[None, :, None],  # (1, H, 1)
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
        "flat": np.array([0, len(rates) * item_vectors.shape[1]]),
        "scale": np.float32((temperature or 1.0) ** -0.5),
    }
    if is_ordered:
        known = [
            ("Concat", ["pooled_flat", "user_features"], "known", {"axis": 1}),  # (B, HD + F)
            ("Identity", ["known"], "seen", {}),
        ]
    else:
        before = tower.get_layer("before")
        constants |= {"before_w": before.gamma.numpy(), "before_b": before.beta.numpy()}
        known = [
            ("Identity", ["pooled_flat"], "known", {}),
            ("LayerNormalization", ["known", "before_w", "before_b"], "seen", {"epsilon": before.epsilon}),
        ]
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
        *known,
        ("Gemm", ["seen", "hidden_w", "hidden_b"], "hidden_linear", {}),
        ("Relu", ["hidden_linear"], "hidden", {}),
        ("Gemm", ["hidden", "deep_w", "deep_b"], "deep", {}),
        ("MatMul", ["known", "wide_w"], "wide", {}),
        ("Add", ["deep", "wide"], "user" if temperature else "user_vector", {}),  # (B, D)
    ]
    if temperature:
        operations += [
            ("ReduceL2", ["user", "axis_1"], "length_of_user", {}),  # (B, 1)
            ("Max", ["length_of_user", "tiny"], "length_safe", {}),
            ("Div", ["user", "length_safe"], "direction", {}),
            ("Mul", ["direction", "scale"], "user_vector", {}),
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
            helper.make_tensor_value_info("user_features", TensorProto.FLOAT, ["batch", len(USER_FEATURES)]),
        ],
        [helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["batch", item_vectors.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in as_float.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", ONNX_OPSET)], ir_version=ONNX_IR)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
