"""Deterministic assignment of users to variants: the same user gets the same variant in every process."""

import hashlib
from collections.abc import Mapping

BUCKETS = 10_000


def bucket(user_id: str, salt: str) -> int:
    """Return the user's bucket in [0, BUCKETS), from a keyed digest and therefore equal in every process and year.

    The salt is the digest's key: two experiments with different salts split the users independently.
    """
    digest = hashlib.blake2b(user_id.encode(), key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def assign(user_id: str, salt: str, weights: Mapping[str, float]) -> str:
    """Return the variant of this user under these weights.

    Args:
        user_id: any string, the empty string included.
        salt: names the experiment.
        weights: variant → share of traffic; shares are non-negative and sum to one within 1e-9.

    Raises:
        ValueError: the weights are empty, negative or do not sum to one.
    """
    if not weights or any(share < 0 for share in weights.values()) or abs(sum(weights.values()) - 1) > 1e-9:
        raise ValueError(f"variant weights must be non-negative and sum to one, got {dict(weights)}")
    position = (bucket(user_id, salt) + 0.5) / BUCKETS
    cumulative = 0.0
    for variant, share in weights.items():
        cumulative += share
        if position < cumulative:
            return variant
    return next(variant for variant in reversed(list(weights)) if weights[variant] > 0)
