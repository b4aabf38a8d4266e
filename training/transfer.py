"""`python -m training transfer`: what one domain teaches another, pair by pair, and for whom.

The same model (training/models/content_ials.py) learns the target twice: by itself, and after it has learnt the source.
Two bridges carry over what the source knows. The map from texts to vectors is one for the items of both, so that
domains without a common user can teach each other too; and a user of both begins, and is drawn by the regularisation,
where the source has put this user. What a user has not used says something only in domains in which the user is at all,
so neither domain's silence is held against the other's users, as it would be in one factorisation of both. Both models
are asked about the same users' next items in the target, without and with what these users did in the source; only the
target's items are ranked. The target is learnt from whole and from a tenth of its users, since a domain needs help most
while it is small.

The verdict is on ndcg@10 with a paired bootstrap interval: it *helps* where the interval is above zero, is *negative
transfer* (Pan and Yang 2010, "A Survey on Transfer Learning") where it is below, *harmless* where a loss of more than
`TOLERATED` of what the target reaches alone is excluded, and *undecided* otherwise. Per bucket: how many interactions
in the target are known of a user. Users of whom neither domain knows anything get the same list from both and are left
out.

The map is a t-SNE (van der Maaten and Hinton 2008) of the most used items of each domain in the vectors learnt from all
domains together. I items, D factors, U users of a training part, B users who are asked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from recsys import metrics, receipts
from recsys.artifacts import TRANSFER_MAP, TRANSFER_VERDICTS
from recsys.interval import Interval
from recsys.retriever import top_k
from recsys.settings import Settings
from recsys.warehouse import connect
from training import tasks
from training.analytics.tables import replace as replace_rows
from training.dataset import Cut, TrainingData
from training.evaluate import BUCKETS
from training.model import Workplace
from training.models import content_ials
from training.models.ials import IALS, Rows, solve_side

TASK = "training.transfer"
SHARES = (1.0, 0.1)
"""Shares of the target's users that are learnt from."""
TOLERATED = 0.05
FEWEST_USERS = 30
ON_THE_MAP = 300
"""Items of a domain."""
K, BLOCK_USERS = 10, 500
EVERYBODY = "all"


@dataclass(frozen=True)
class Asked:
    """Users, what is known of them in all domains, and what they did next."""

    histories: list[np.ndarray]
    """Item codes, oldest first. (B,) of (L,)"""
    targets: list[np.ndarray]
    """Items that the history lacks. (B,) of (R,)"""


def verdict(users: int, alone: float, low: float, high: float) -> str:
    """Say in a word what the source does to the target."""
    if users < FEWEST_USERS:
        return "undecided"
    if low > 0:
        return "helps"
    if high < 0:
        return "negative transfer"
    return "harmless" if low >= -TOLERATED * alone else "undecided"


def of_domains(data: TrainingData, kept_items: np.ndarray, kept_users: np.ndarray | None = None) -> TrainingData:
    """Return the events of these items (bool (I,)), and of these users only where they are given."""
    rows = kept_items[data.items]
    if kept_users is not None:
        rows &= np.isin(data.users, kept_users)
    return replace(
        data, users=data.users[rows], items=data.items[rows], instants=data.instants[rows], user_features=None
    )


@dataclass(frozen=True)
class Adapted:
    """A target's items in the space of a source."""

    source: IALS
    vectors: np.ndarray
    """Of the target's items; elsewhere what their texts say. float32 (I, D)"""
    config: content_ials.Config

    def users(self, near: list[np.ndarray], far: list[np.ndarray]) -> np.ndarray:
        """Return the vectors of users by what they did in the target and in the source. (B, D)"""
        prior = folded(self.source.item_vectors, far, self.source.config, None)
        return folded(self.vectors, near, self.config, prior)


def folded(vectors: np.ndarray, histories: list[np.ndarray], config: content_ials.Config, prior: np.ndarray | None):
    """Return the least-squares vectors of users, drawn to `prior`; who has no history is where the prior is. (B, D)"""
    lengths = [len(history) for history in histories]
    found = np.zeros((len(histories), vectors.shape[1]), np.float32) if prior is None else prior.copy()
    if not sum(lengths):
        return found
    ages = np.concatenate([np.arange(length)[::-1] for length in lengths])
    weights = ((1.0 + ages) ** -config.recency_exponent).astype(np.float32)
    rows = Rows(np.repeat(np.arange(len(histories)), lengths), np.concatenate(histories), weights, len(histories))
    solve_side(found, vectors, rows, config, config.reg * config.fold_in_share, prior)
    return found


def adapt(
    source: IALS, learnt: TrainingData, target: TrainingData, texts: np.ndarray, config: content_ials.Config, seed: int
) -> Adapted:
    """Learn the target in the space of a source.

    Args:
        source: fitted on `learnt`, the source's events.
        texts: what the texts say of each item of both. (I, E + 1)
    """
    rows = np.concatenate(target.sequences())
    users, codes = np.unique(target.users[rows], return_inverse=True)  # (U,)
    age_days = (target.cut_at - target.instants[rows]) / 86_400_000
    weights = (0.5 ** (age_days / config.half_life_days)).astype(np.float32)
    own = np.bincount(target.items, minlength=target.n_items) > 0
    config = of_size(config, float(weights.sum()), len(users), target.n_items)
    of_users, of_items = (
        Rows(codes, target.items[rows], weights, len(users)),
        Rows(target.items[rows], codes, weights, len(own)),
    )
    histories = [learnt.items[slice(*np.searchsorted(learnt.users, [user, user + 1]))] for user in users]
    prior = folded(source.item_vectors, histories, source.config, None)  # (U, D)
    counts = np.bincount(learnt.items, minlength=len(own))
    from_source = np.where(counts > 0, counts + source.config.unobserved_weight * len(np.unique(learnt.users)), 0.0)
    from_target = np.where(own, of_items.total + config.unobserved_weight * len(users), 0.0)
    said = content_ials.mapped(texts, source.item_vectors, from_source, config.map_reg)
    noise = np.random.default_rng(seed).normal(0, 0.01, said.shape).astype(np.float32)
    vectors = np.where(own[:, None], said + noise, 0).astype(np.float32)  # (I, D)
    found = np.zeros((len(users), vectors.shape[1]), np.float32)
    for _ in range(config.epochs):
        solve_side(found, vectors, of_users, config, config.reg, prior)
        solve_side(vectors, found, of_items, config, config.reg, said)
        both = np.where(own[:, None], vectors, source.item_vectors)
        said = content_ials.mapped(texts, both, from_source + from_target, config.map_reg)
    if not own.all():
        vectors[~own] = config.cold_scale * content_ials.from_neighbours(texts[:, :-1], vectors, ~own, config)
    return Adapted(source, vectors, config)


def of_size(config: content_ials.Config, events: float, users: int, items: int) -> content_ials.Config:
    """Return the configuration with the weight of what was not used, for data of this size."""
    if not config.unobserved_ratio:
        return config
    return config.model_copy(update={"unobserved_weight": config.unobserved_ratio * events / (users * items)})


def quality(
    score: Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray],
    near: list[np.ndarray],
    far: list[np.ndarray],
    targets: list[np.ndarray],
    ranked: np.ndarray,
) -> np.ndarray:
    """Return the ndcg@10 of each user among the ranked items (bool (I,)). (B,)

    Args:
        score: what users did in the target and in the source → their scores of all items (b, I).
    """
    values = []
    for start in range(0, len(near), BLOCK_USERS):
        part = slice(start, start + BLOCK_USERS)
        scores = np.where(ranked, score(near[part], far[part]), -np.inf)  # (b, I)
        for row, history in enumerate(near[part]):
            scores[row, history] = -np.inf
        hits = np.array([np.isin(best, one) for best, one in zip(top_k(scores, K)[0], targets[part], strict=True)])
        values.append(metrics.ndcg_at_k(hits, np.array([len(one) for one in targets[part]]), K))
    return np.concatenate(values)


def similarity(vectors: np.ndarray, source: np.ndarray, target: np.ndarray) -> float:
    """Return the mean cosine of a target item to the nearest source item in the shared vectors."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    nearest = [(unit[part] @ unit[source].T).max(1) for part in np.array_split(target, -(-len(target) // 1000))]
    return float(np.concatenate(nearest).mean())


def compare(
    data: TrainingData,
    asked: Asked,
    domains: tuple[str, ...],
    config: content_ials.Config,
    seed: int,
    workplace: Workplace,
    sources: tuple[str, ...] | None = None,
) -> pd.DataFrame:
    """Return a row for each ordered pair of domains, share of the target's users and bucket, as the table has them.
    `sources`: which of the domains teach; all of them where it is not given."""
    of_item = np.array(data.catalogue.domain)
    texts = content_ials.text_vectors(data, config, workplace)  # (I, E + 1)
    parts = {domain: of_domains(data, of_item == domain) for domain in domains}
    fitted = {domain: content_ials.fit(part, config, seed, workplace) for domain, part in parts.items()}
    rows = []
    pairs = [(target, source) for target in domains for source in sources or domains if source != target]
    for target, source in pairs:
        ranked = of_item == target
        wanted = [own[ranked[own]] for own in asked.targets]
        near, far = ([own[(of_item == domain)[own]] for own in asked.histories] for domain in (target, source))
        chosen = [row for row, own in enumerate(wanted) if len(own) and len(near[row]) + len(far[row])]
        if not chosen:
            continue
        wanted, near, far = ([column[row] for row in chosen] for column in (wanted, near, far))
        for share in SHARES:
            users = np.unique(parts[target].users)
            kept = np.random.default_rng([seed, 43]).permutation(users)[: max(1, round(share * len(users)))]
            part = of_domains(data, ranked, kept)
            alone = fitted[target] if share == 1 else content_ials.fit(part, config, seed, workplace)
            taught = adapt(fitted[source], parts[source], part, texts, config, seed)
            counts = np.bincount(part.items, minlength=data.n_items).astype(np.float32)
            said = [
                quality(score, near, far, wanted, ranked)
                for score in (partial(by_itself, alone, counts), partial(with_source, taught, counts))
            ]
            there = [np.unique(parts[domain].items) for domain in (source, target)]
            alike = similarity(np.where(ranked[:, None], taught.vectors, fitted[source].item_vectors), *there)
            key = {"source_domain": source, "target_domain": target, "target_share": share}
            lengths = np.array([len(own) for own in near])
            rows += [{**key, **row, "embedding_similarity": alike} for row in by_bucket(*said, lengths, seed)]
    return pd.DataFrame(rows)


def by_itself(model: IALS, counts: np.ndarray, near: list[np.ndarray], far: list[np.ndarray]) -> np.ndarray:
    """Return scores without the source; who has no history is shown what is popular. (b, I)"""
    scores = np.tile(counts, (len(near), 1))
    known = [row for row, own in enumerate(near) if len(own)]
    if known:
        scores[known] = model.score([near[row] for row in known])
    return scores


def with_source(model: Adapted, counts: np.ndarray, near: list[np.ndarray], far: list[np.ndarray]) -> np.ndarray:
    """Return scores with the source; who has a history in neither is shown what is popular. (b, I)"""
    scores = model.users(near, far) @ model.vectors.T
    unknown = [row for row in range(len(near)) if not len(near[row]) + len(far[row])]
    scores[unknown] = counts
    return scores


def by_bucket(alone: np.ndarray, taught: np.ndarray, lengths: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Return the verdicts for everybody and for each bucket that somebody is in. All (B,)"""
    rows = []
    for name, (least, most) in {EVERYBODY: (0, np.inf), **BUCKETS}.items():
        inside = (lengths >= least) & (lengths <= most)
        if not inside.any():
            continue
        difference, low, high = metrics.paired_bootstrap(taught[inside], alone[inside], seed)
        reached, users = float(alone[inside].mean()), int(inside.sum())
        rows.append(
            {
                "bucket": name,
                "users": users,
                "alone": reached,
                "transferred": float(taught[inside].mean()),
                "difference": difference,
                "low": low,
                "high": high,
                "verdict": verdict(users, reached, low, high),
            }
        )
    return rows


def item_map(
    data: TrainingData, domains: tuple[str, ...], config: content_ials.Config, seed: int, workplace: Workplace
) -> pd.DataFrame:
    """Return where the most used items of each domain lie on one map."""
    from sklearn.manifold import TSNE

    of_item, counts = np.array(data.catalogue.domain), np.bincount(data.items, minlength=data.n_items)
    learnt = content_ials.fit(of_domains(data, np.isin(of_item, domains)), config, seed, workplace)
    shown = []
    for domain in domains:
        own = np.flatnonzero((of_item == domain) & (counts > 0))
        shown.append(own[np.argsort(-counts[own], kind="stable")][:ON_THE_MAP])
    items = np.concatenate(shown)
    if len(items) < 5:  # too few for a neighbourhood
        places = np.zeros((len(items), 2))
    else:
        vectors = learnt.item_vectors[items]
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        perplexity = min(30.0, (len(items) - 1) / 3)
        places = TSNE(perplexity=perplexity, init="pca", random_state=seed, metric="cosine").fit_transform(unit)
    catalogue = data.catalogue
    return pd.DataFrame(
        {
            "domain": of_item[items],
            "item_id": [catalogue.item_id[item] for item in items],
            "title": [catalogue.title[item] for item in items],
            "x": places[:, 0].astype(float),
            "y": places[:, 1].astype(float),
        }
    )


def run(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Compare the domains of the latest cut and replace their rows; with one domain there is nothing to compare."""
    with connect(settings) as connection:
        upstream, made = receipts.latest(connection, tasks.CUT, interval.key)
        wanted = receipts.fingerprint(tasks.code(), upstream, settings.seed)
        known = receipts.recall(connection, TASK, interval.key, wanted)
    if known:
        return {**known, "unchanged": True}
    from threadpoolctl import threadpool_limits

    frozen = Cut(tasks.cut_folder(settings, made["cut_id"]))
    data, requests = frozen.training_data(), frozen.requests()
    there = set(np.array(data.catalogue.domain)[np.unique(data.items)].tolist())
    domains = tuple(domain for domain in interval.domains if domain in there)
    detail: dict[str, Any] = {"cut_id": made["cut_id"], "pairs": 0, "verdicts": {}}
    verdicts, places = pd.DataFrame(), pd.DataFrame()
    if len(domains) > 1:
        config, place = content_ials.Config(), Workplace(settings.threads, settings.var_dir / "training" / "cache")
        with threadpool_limits(settings.threads):
            asked = Asked(requests.histories, requests.targets)
            verdicts = compare(data, asked, domains, config, settings.seed, place)
            places = item_map(data, domains, config, settings.seed, place).assign(as_of=interval.as_of)
        detail["pairs"] = len(list(permutations(domains, 2)))
        if len(verdicts):
            detail["verdicts"] = verdicts["verdict"].value_counts().to_dict()
            verdicts = verdicts.assign(as_of=interval.as_of)
    with connect(settings) as connection:
        replace_rows(connection, TRANSFER_VERDICTS, verdicts, interval.domains, "target_domain")
        replace_rows(connection, TRANSFER_MAP, places, interval.domains)
        receipts.record(connection, TASK, interval.key, wanted, detail)
    return {**detail, "unchanged": False}
