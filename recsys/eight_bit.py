"""The best items of a large catalogue, exactly, by a first look in eight bits.

A product of a user with 62 000 × 64 vectors reads 16 MB; in eight bits it reads 4 MB. What rounding can do to a score
is bounded (Cauchy–Schwarz on the two remainders), so every item that may be among the best k is known, and only those
are scored in full. ONNX Runtime does the product.

Shapes: B users, I items, D embedding size, C candidates.
"""

from base64 import b64decode
from collections.abc import Iterator

import numpy as np

PRODUCT = b64decode(
    "CAk6eQopCgV1c2VycwoFaXRlbXMKBHplcm8SBHN1bXMiDU1hdE11bEludGVnZXISB3Byb2R1Y3RaGQoFdXNlcnMSEAoOCAISCgoD"
    "EgFCCgMSAURaDgoEemVybxIGCgQIAhIAYhgKBHN1bXMSEAoOCAYSCgoDEgFCCgMSAUlCBAoAEBE="
)
"""An ONNX model of one node, `sums (B, I) int32 = (users (B, D) uint8 - zero) · items (D, I) int8`, without its items;
a test makes it anew with the library that serving goes without."""

ZERO = 128
_ZERO = np.array(ZERO, np.uint8)
LARGEST = 127.0
FLOAT_SLACK = 1e-5
"""Share of the largest possible score that float32 sums may be off by, above the bound."""

MANY = 0.1
"""Share of the catalogue beyond which candidates are not worth picking out: the caller scores everything."""


class EightBit:
    """Item vectors in eight bits beside the full ones. Immutable; one thread a call."""

    def __init__(self, vectors: np.ndarray, bias: np.ndarray | None):
        """Prepare vectors (I, D), row by row in memory: a candidate is one read; and the items' biases (I,)."""
        import onnxruntime  # an image that serves small catalogues goes without

        self._rows, self._bias = vectors, bias
        self._scale = np.maximum(np.abs(self._rows).max(axis=1), np.float32(1e-30)) / np.float32(LARGEST)  # (I,)
        codes = np.rint(self._rows / self._scale[:, None]).astype(np.int8)  # (I, D)
        norms = np.linalg.norm(self._rows, axis=1)
        self._longest = float(norms.max())
        self._remainder = float(np.linalg.norm(self._rows - codes * self._scale[:, None], axis=1).max())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = PRODUCT + _with_items(np.ascontiguousarray(codes.T))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def looks(self, users: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Yield for each user (of B, D) the approximate scores (I,), the caller's own, and how far one may be off."""
        scale = np.maximum(np.abs(users).max(axis=1), np.float32(1e-30)) / np.float32(LARGEST)  # (B,)
        codes = np.rint(users / scale[:, None])  # (B, D)
        sums = self._session.run(["sums"], {"users": (codes + ZERO).astype(np.uint8), "zero": _ZERO})[0]
        rounded = codes * scale[:, None]
        lost = np.linalg.norm(users - rounded, axis=1) * self._longest
        lost += np.linalg.norm(rounded, axis=1) * self._remainder
        lost += FLOAT_SLACK * np.linalg.norm(users, axis=1) * self._longest
        for row, user_scale, off in zip(sums, scale, lost.tolist(), strict=True):
            scores = row.astype(np.float32)  # (I,); of both together NumPy would make doubles
            scores *= self._scale
            scores *= user_scale
            if self._bias is not None:
                scores += self._bias
            yield scores, off

    def exact(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the scores in full of a user (D,) for some items (C,). float32 (C,)"""
        scores = self._rows[items] @ user
        return scores if self._bias is None else scores + self._bias[items]


def _with_items(codes: np.ndarray) -> bytes:
    """Return what, put behind `PRODUCT`, gives it its items (D, I): in protobuf's wire format messages that stand one
    behind the other are one, so this is `ModelProto{graph{initializer{…}}}` by hand."""
    width, items = codes.shape
    tensor = b"".join((
        b"\x08", _varint(width), b"\x08", _varint(items),  # dims
        b"\x10\x03",  # data_type INT8
        _field(8, b"items"), _field(9, codes.tobytes()),  # name, raw_data
    ))  # fmt: skip
    return _field(7, _field(5, tensor))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
