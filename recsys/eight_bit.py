"""The best items of a large catalogue, exactly, by a first look in eight bits.

A product of a user with 62 000 × 64 vectors reads 16 MB; in eight bits it reads 4 MB. What rounding can do to a score
is bounded (Cauchy–Schwarz on the two remainders), so every item that may be among the best k is known, and only those
are scored in full. ONNX Runtime does the product.

Shapes: B users, I items, D embedding size, C candidates.
"""

import math
import threading
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

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
SMALLEST = 1e-30
"""What takes the place of nothing where something is divided by it."""
FLOAT_SLACK = 1e-5
"""Share of the largest possible score that float32 sums may be off by, above the bound."""

MANY = 0.1
"""Share of the catalogue beyond which candidates are not worth picking out: the caller scores everything."""
TOGETHER = 8
"""Users of one product: so many sums a thread keeps room for."""


class Look(NamedTuple):
    """A user's approximate scores, in steps."""

    steps: np.ndarray
    """(I,), int32, or float32 where items have biases. The reader's own until its thread looks again."""
    off: float
    """By how many steps one of them may be off."""
    step: float
    """What a step is worth."""

    def leave_out(self, items: np.ndarray | slice) -> None:
        """Put these items below all others."""
        self.steps[items] = _BELOW_ALL[self.steps.dtype.kind][0]

    def candidates(self, kth: float) -> np.ndarray:
        """Return the items that may be among the best k, where `kth` is a number of steps that k items reach, without
        those that were left out. They ascend. int64 (C,)"""
        kind = self.steps.dtype.kind
        least = max(kth - 2 * self.off, _BELOW_ALL[kind][1])
        return (self.steps >= (math.ceil(least) if kind == "i" else least)).nonzero()[0]


_BELOW_ALL = {"i": (-(2**31), 1 - 2**31), "f": (-np.inf, float(np.finfo(np.float32).min))}
"""Kind of number → what stands below all, and the least that does not."""


class EightBit:
    """Item vectors in eight bits beside the full ones. Immutable but for each thread's room."""

    def __init__(self, vectors: np.ndarray, bias: np.ndarray | None):
        """Prepare vectors (I, D), row by row in memory: a candidate is one read; and the items' biases (I,)."""
        import onnxruntime  # an image that serves small catalogues goes without

        self._rows, self._bias = vectors, bias
        # One scale for all: sums are compared as they come, and the bound is that of the largest number either way.
        self._scale = max(float(np.abs(vectors).max()), SMALLEST) / LARGEST
        codes = np.rint(vectors / np.float32(self._scale)).astype(np.int8)  # (I, D)
        self._longest = float(np.linalg.norm(vectors, axis=1).max())
        self._remainder = float(np.linalg.norm(vectors - codes * np.float32(self._scale), axis=1).max())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = PRODUCT + _with_items(np.ascontiguousarray(codes.T))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._rooms = threading.local()

    def looks(self, users: np.ndarray) -> Iterator[Look]:
        """Yield what a first look at each user (of B, D) says."""
        for start in range(0, len(users), TOGETHER):
            some = users[start : start + TOGETHER]
            codes, sums, binding = self._room(len(some))
            worth = [self._rounded(user, code) for user, code in zip(some, codes, strict=True)]
            self._session.run_with_iobinding(binding)
            for row, (step, off) in zip(sums, worth, strict=True):
                if self._bias is None:
                    yield Look(row, off, step)
                else:
                    scores = row.astype(np.float32)  # (I,); of both together NumPy would make doubles
                    scores *= np.float32(step)
                    scores += self._bias
                    yield Look(scores, off * step, 1.0)

    def _rounded(self, user: np.ndarray, code: np.ndarray) -> tuple[float, float]:
        """Write a user's code (D,) uint8; return what a step of the sums is worth, and by how many one may be off."""
        scale = max(float(np.abs(user).max()), SMALLEST) / LARGEST
        rounded = np.rint(user / np.float32(scale))  # (D,)
        np.add(rounded, ZERO, out=code, casting="unsafe")
        rounded *= np.float32(scale)
        lost = (_length(user - rounded) + FLOAT_SLACK * _length(user)) * self._longest
        lost += _length(rounded) * self._remainder
        step = scale * self._scale
        return step, lost / step

    def _room(self, users: int) -> tuple[np.ndarray, np.ndarray, Any]:
        """Return where this thread writes the codes (B, D) and reads the sums (B, I) of so many users, and the binding
        of both: memory that is taken once stays near the processor."""
        rooms = self._rooms.__dict__
        if not rooms:
            items, width = self._rows.shape
            all_codes, all_sums = np.empty((TOGETHER, width), np.uint8), np.empty((TOGETHER, items), np.int32)
            for size in range(1, TOGETHER + 1):
                codes, sums, binding = all_codes[:size], all_sums[:size], self._session.io_binding()
                binding.bind_cpu_input("users", codes)
                binding.bind_cpu_input("zero", _ZERO)
                binding.bind_output("sums", "cpu", 0, np.int32, sums.shape, sums.ctypes.data)
                rooms[size] = codes, sums, binding
        return rooms[users]

    def exact(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the scores in full of a user (D,) for some items (C,). float32 (C,)"""
        scores = self._rows.take(items, axis=0) @ user
        return scores if self._bias is None else scores + self._bias[items]


def _length(vector: np.ndarray) -> float:
    return math.sqrt(vector @ vector)


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
