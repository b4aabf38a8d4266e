"""`python -m training tune`: settings of a model, searched for by Optuna on a part of the cut's training part.

The test requests of the cut are never read. The training part is split once more by time, as the cut itself was, and a
trial is judged by the deciding metric of what its users did behind that second cut. A trial climbs three rungs: it
learns from a ninth, a third and all of the users, and after each rung those that are not among the best third so far
are pruned (Li et al. 2018, "A System for Massively Parallel Hyperparameter Tuning"). The first trial is the model's own
Config, so that the answer is never worse than it on this part; candidates come from a Parzen estimator (Bergstra et
al. 2011), as Akiba et al. 2019, "Optuna", implement both.

The study lives in PostgreSQL, schema `tuning`, under the names of model, cut and search space. A search that is called
again, or that was killed, goes on: the trial that died with its process is asked for once more, and a PyTorch training
in it goes on from its checkpoint. One process at a time searches a study. What was found is a receipt, which the next
`fit` of that model and those domains reads.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from recsys import metrics, receipts
from recsys.artifacts import TUNING
from recsys.errors import CheckFailed, RecsysError, UnusableInput
from recsys.interval import Interval
from recsys.retriever import top_k
from recsys.settings import Settings
from recsys.temporal_split import temporal_split
from recsys.warehouse import connect
from training import tasks
from training.dataset import TRAIN_SHARE, Cut, TrainingData
from training.model import Workplace, module_of, space_fingerprint, space_of

RUNGS = (1, 3, 9)
"""Ninths of the users that a trial learns from, one after the other."""
MOST_USERS = 2000
BLOCK_SCORES = 8_000_000
K = 10
KILLED = "killed"
"""Attribute of a study: numbers of the trials whose process died."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """The second split. B users are asked, n events are learnt from."""

    data: TrainingData
    histories: list[np.ndarray]
    """Item codes known at each request, oldest first. (B,) of (L,)"""
    targets: list[np.ndarray]
    """Items used later that the history lacks, at least one. (B,) of (R,)"""
    features: np.ndarray | None
    """User features at the latest known event. (B, F)"""
    rung: np.ndarray
    """Of each event, the first rung whose part of the users holds its user. (n,)"""

    @classmethod
    def of(cls, whole: TrainingData, seed: int) -> "Validation":
        """Split a training part by time; chance decides who is on which rung, and who is asked where they are many.

        Raises:
            UnusableInput: nobody can be asked.
        """
        split, rng = temporal_split(whole.users, whole.instants, TRAIN_SHARE), np.random.default_rng([seed, 29])
        testable = np.unique(whole.users[split.target])
        asked = np.sort(rng.permutation(testable)[:MOST_USERS])
        histories, targets, latest = [], [], []
        for user in asked:
            known = split.history[slice(*np.searchsorted(whole.users[split.history], [user, user + 1]))]
            later = split.target[slice(*np.searchsorted(whole.users[split.target], [user, user + 1]))]
            wanted = np.setdiff1d(whole.items[later], whole.items[known])
            if len(wanted) and len(known):
                histories.append(last_uses(whole.items[known]))
                targets.append(wanted)
                latest.append(known[-1])
        if not targets or not len(split.train):
            found = f"{len(targets)} users after the second cut"
            raise UnusableInput("validation part", found, "Land more history: nothing can be tuned on it")
        rows, given = split.train, whole.user_features
        data = replace(
            whole,
            users=whole.users[rows],
            items=whole.items[rows],
            instants=whole.instants[rows],
            cut_at=split.cut_at,
            user_features=None if given is None else given[rows],
        )
        users, place = np.unique(data.users, return_inverse=True)
        share = rng.permutation(len(users)) / len(users)  # (U,)
        rung = np.searchsorted(np.array(RUNGS[:-1]) / RUNGS[-1], share, side="right")[place]
        return cls(data, histories, targets, None if given is None else given[np.array(latest)], rung)

    def part(self, rung: int) -> TrainingData:
        """Return what a trial learns from on a rung."""
        kept, data = self.rung <= rung, self.data
        return replace(
            data,
            users=data.users[kept],
            items=data.items[kept],
            instants=data.instants[kept],
            user_features=None if data.user_features is None else data.user_features[kept],
        )

    def judge(self, model: Any) -> float:
        """Return ndcg@10 of full rankings by the fitted model itself, without what each user has used."""
        block, found = max(1, BLOCK_SCORES // self.data.n_items), []
        for start in range(0, len(self.histories), block):
            own = self.histories[start : start + block]
            known = None if self.features is None else self.features[start : start + block]
            scores = np.array(model.score(own, known))  # (b, I)
            for row, history in enumerate(own):
                scores[row, history] = -np.inf
            lists = zip(top_k(scores, K)[0], self.targets[start : start + block], strict=True)
            found += [np.isin(listed, target) for listed, target in lists]
        n_relevant = np.array([len(target) for target in self.targets])
        return float(metrics.ndcg_at_k(np.array(found), n_relevant, K).mean())


def last_uses(items: np.ndarray) -> np.ndarray:
    """Return each item once, at its latest place. (L,)"""
    _, from_the_end = np.unique(items[::-1], return_index=True)
    return items[::-1][np.sort(from_the_end)][::-1]


@contextmanager
def alone(settings: Settings, study: str) -> Iterator[None]:
    """Hold a study for this process: whatever runs in it is then of a process that died.

    Raises:
        RecsysError: another process searches it.
    """
    with connect(settings) as connection:
        held = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (f"tune {study}",)).fetchone()
        if not held or not held[0]:
            raise RecsysError("study", study, "Another process searches it; wait for it, or end it")
        connection.commit()
        yield


def open_study(settings: Settings, name: str, seed: int) -> optuna.Study:
    """Return a study with all its trials so far, a new one if there is none."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    url = make_url(settings.postgres_url).set(drivername="postgresql+psycopg")
    own_schema = {"connect_args": {"options": f"-csearch_path={TUNING}"}}
    storage = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=own_schema)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=RUNGS[0], reduction_factor=RUNGS[1])
    study = optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
    )
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))  # no draw comes twice
    return study


def prepare(study: optuna.Study, module: ModuleType) -> None:
    """Begin a new study with the model's own settings; in an old one, ask again for what died with its process."""
    if not study.trials:
        own = module.Config()
        study.enqueue_trial({field: getattr(own, field) for field in space_of(module)})
    died = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    for trial in died:
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    if died:
        study.set_user_attr(KILLED, [*study.user_attrs.get(KILLED, []), *(trial.number for trial in died)])


def tried(study: optuna.Study) -> int:
    """Return how many trials came to an end of their own."""
    killed = study.user_attrs.get(KILLED, [])
    return sum(trial.state.is_finished() and trial.number not in killed for trial in study.trials)


def search(
    study: optuna.Study,
    module: ModuleType,
    validation: Validation,
    *,
    trials: int,
    seconds: float,
    seed: int,
    workplace: Workplace,
) -> None:
    """Add trials to a study until it has so many, or until the time is over.

    Raises:
        CheckFailed: no trial came to its end.
    """

    def objective(trial: optuna.Trial) -> float:
        config = module.Config(**{field: values.suggest(trial, field) for field, values in space_of(module).items()})
        for rung, ninths in enumerate(RUNGS):
            value = validation.judge(module.fit(validation.part(rung), config, seed, workplace.anew()))
            trial.report(value, ninths)
            if ninths < RUNGS[-1] and trial.should_prune():
                raise optuna.TrialPruned
        log.info("trial %d: ndcg_at_10 %.4f with %s", trial.number, value, trial.params)
        return value

    prepare(study, module)
    left = trials - tried(study)
    if left > 0:
        study.optimize(objective, n_trials=left, timeout=seconds, catch=(RecsysError,))
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        raise CheckFailed(f"trials of {study.study_name}", f"{tried(study)}, none to its end", "See the log for why")


def summary(study: optuna.Study) -> dict[str, Any]:
    """Return what a study has found."""
    ended = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    best, first = max(ended, key=lambda trial: trial.value), study.trials[0]
    states = {state.name.lower(): sum(trial.state == state for trial in study.trials) for state in TrialState}
    return {
        "study": study.study_name,
        "settings": best.params,
        "ndcg_at_10": round(best.value, 4),
        "ndcg_at_10_of_the_own_settings": round(first.value, 4) if first.state == TrialState.COMPLETE else None,
        "trials": {state: count for state, count in states.items() if count},
        "died": len(study.user_attrs.get(KILLED, [])),
    }


def run(settings: Settings, interval: Interval, name: str, trials: int, seconds: float) -> dict[str, Any]:
    """Search for settings of a model on the latest cut; the study may have begun in an earlier call.

    Raises:
        RecsysError: there is nothing to search, or another process searches it.
        UnusableInput: the cut's training part is too small to be split.
    """
    from threadpoolctl import threadpool_limits

    module = module_of(name)
    if not space_of(module) or trials < 1 or not seconds > 0:
        raise RecsysError("tune", f"{name}, {trials} trials, {seconds} s", "Name a model with a SPACE; both above zero")
    with connect(settings) as connection:
        upstream, made = receipts.latest(connection, tasks.CUT, interval.key)
    frozen, features = Cut(tasks.cut_folder(settings, made["cut_id"])), None
    if module.FEATURES:
        from training import point_in_time

        features, _ = point_in_time.user_features(settings, frozen)
    space = space_fingerprint(module)
    study_name = f"{name}@{made['cut_id']}@{space[:8]}"
    workplace = Workplace(settings.threads, settings.var_dir / "training" / "cache", seconds)
    with alone(settings, study_name), threadpool_limits(settings.threads):
        validation = Validation.of(frozen.training_data(features), settings.seed)
        study = open_study(settings, study_name, settings.seed)
        search(study, module, validation, trials=trials, seconds=seconds, seed=settings.seed, workplace=workplace)
        detail = {"model": name, "cut_id": made["cut_id"], "space": space, **summary(study)}
        with connect(settings) as connection:
            wanted = receipts.fingerprint(upstream, space, detail["settings"])
            receipts.record(connection, f"{tasks.TUNE}.{name}", ",".join(interval.domains), wanted, detail)
    return {**detail, "unchanged": False}
