"""What the measurements of serving stand on: a model of a given size, and users with a history, in real services."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import redis

from infra.local import broker
from recsys import user_state
from recsys.artifacts import ITEM_FACTS_FILE, ITEM_FEATURES, USER_FEATURES
from recsys.bundle import Catalogue, Manifest, write_bundle
from recsys.settings import Settings

INSTANT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
EMBEDDING_SIZE, HISTORY, USERS = 64, 100, 1000
ML_1M_ITEMS, ML_25M_ITEMS = 3_706, 62_000
GENRES = [f"Genre {n:02}" for n in range(18)]
CHANNELS = 24
"""Directions that the item vectors spread over, so that neighbours exist as they do in a trained model."""


def names(items: int) -> list[str]:
    return [f"movielens:{n:07}" for n in range(items)]


def item_vectors(items: int, seed: int = 1) -> np.ndarray:
    """Return vectors of unit scale in clusters, in no helpful order. float32 (I, D)"""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(CHANNELS, EMBEDDING_SIZE))
    mixed = centres[chance.integers(CHANNELS, size=items)] + chance.normal(size=(items, EMBEDDING_SIZE))
    return (mixed / np.sqrt(2 * EMBEDDING_SIZE)).astype(np.float32)


def write_model(folder: Path, items: int) -> Path:
    """Write an iALS bundle: the kind that does most work a request, a solve and a score of every item."""
    vectors, chance = item_vectors(items), np.random.default_rng(2)
    manifest = Manifest(
        model="ials", framework="numpy", kind="ials", cut_id=f"load-{items}", as_of="2020-01-01T00:00:00Z",
        unobserved_weight=0.1, reg=0.01,
    )  # fmt: skip
    catalogue = Catalogue(
        item_id=names(items),
        domain=["movies"] * items,
        title=[f"Film number {n} ({1950 + n % 70})" for n in range(items)],
        categories=[sorted(chance.choice(GENRES, 2, replace=False).tolist()) for _ in range(items)],
        published_year=[1950 + n % 70 for n in range(items)],
    )
    popularity = chance.zipf(1.6, size=items).clip(max=1_000_000)
    arrays = {"popularity": popularity, "item_vectors": vectors, "gram": vectors.T @ vectors}
    write_bundle(folder, manifest, catalogue, arrays)
    (folder / "deployment.json").write_text(json.dumps({"model_version": str(items)}))
    return folder


def write_ranker(folder: Path, items: int) -> None:
    """Put a DCN-v2 of the product's size beside the bundle, and the items' facts: its order is of no interest, its work
    is that of a registered one."""
    from training import ranker  # TensorFlow: seconds, and only here

    chance, width = np.random.default_rng(4), len(USER_FEATURES) + len(ITEM_FEATURES)

    def examples(n: int) -> ranker.Examples:
        liked = (chance.random(n) < 0.3).astype(np.float32)
        return ranker.Examples(chance.gamma(2, 50, (n, width)).astype(np.float32), liked)

    module = ranker.module_of("dcn_v2")
    fitted = module.fit(examples(4000), examples(800), module.Config(epochs=1), 1, 1)
    features = {"user_features": USER_FEATURES, "item_features": ITEM_FEATURES}
    ranker.write_ranker(folder, fitted, features, {"model": "dcn_v2", "version": "1"})
    np.savez(folder / ITEM_FACTS_FILE, **{name: chance.gamma(2, 50, items) for name in ITEM_FEATURES})


def write_users(settings: Settings, items: int, users: int = USERS) -> list[str]:
    """Put users into the store as streaming does: history, features, version; return their ids."""
    chance, catalogue = np.random.default_rng(3), names(items)
    ids = [f"load:{number}" for number in range(users)]
    with redis.Redis.from_url(settings.redis_url) as store, store.pipeline(transaction=False) as pipeline:
        for user_id in ids:
            read = chance.choice(items, HISTORY, replace=False)
            events = [(catalogue[item], INSTANT + timedelta(minutes=n)) for n, item in enumerate(read)]
            user_state.add_events(pipeline, user_id, events)
            user_state.set_features(pipeline, user_id, dict.fromkeys(USER_FEATURES, 3.5))
            user_state.move_version(pipeline, user_id)
        pipeline.execute()
    return ids


@contextmanager
def stores() -> Iterator[Settings]:
    """Yield the settings of two real Valkeys, as the platform has them, and a real Kafka, with topics, while the
    block runs."""
    import tempfile

    from infra.local.stores import LOOPBACK
    from tests.conftest import Services
    from tests.ports import free_port

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        services = Services(Path(folder))
        records = {"records_url": f"redis://{LOOPBACK}:{free_port()}/0"}
        services.settings = services.settings.model_copy(update=records)
        try:
            for name in ("redis", "records", "kafka"):
                services.start(name)
            broker.create_topics(services.settings)
            yield services.settings
        finally:
            services.stop()
