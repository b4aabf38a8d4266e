"""The lists of serving, as a model for `mlflow models serve`: history from Redis, exact scores, seen and hidden items
left out, and where a ranker stands beside the bundle its order.

Logged by its path ("models from code"); its server finds the two addresses in the environment, as serving does.
It logs no impressions and keeps no records, which serving does.
"""

import os
from pathlib import Path

import mlflow
import numpy as np
import redis

from recsys import user_state
from serving.graph import DEFAULT_FILE, PERSONALISED, read_graph
from serving.model import load
from serving.plan import Allowed


class Retrieval(mlflow.pyfunc.PythonModel):
    """`{"inputs": [{"user_id", "k"}]}` → one list of (item_id, title, score) for each."""

    def load_context(self, context: object) -> None:
        self._model = load(Path(os.environ["RECSYS_MODEL_DIR"]), graph=read_graph(DEFAULT_FILE))
        self._store = redis.Redis.from_url(os.environ["RECSYS_REDIS_URL"], decode_responses=True)

    def predict(self, model_input: list[dict[str, str]]) -> list[dict[str, object]]:
        retriever, plan, allowed = self._model.retriever, self._model.plan, self._model.allowed(None)
        answers = []
        for asked in model_input:
            with self._store.pipeline(transaction=False) as pipeline:
                user_state.queue_read(pipeline, asked["user_id"])
                state = user_state.decode(pipeline.execute())
            k, seen = int(asked["k"]), retriever.indices(state.history)
            best, scores = retriever.recommend([seen], plan.wanted(PERSONALISED, k), allowed=allowed)
            found = np.flatnonzero(best[0] >= 0)
            shown = plan.run(
                PERSONALISED, k, state.features, best[0, found], scores[0, found], Allowed(allowed, seen)
            )  # fmt: skip
            catalogue = retriever.catalogue
            items = [
                {"item_id": catalogue.item_id[i], "title": catalogue.title[i], "score": score}
                for i, score in zip(shown.items[:k].tolist(), shown.scores[:k].tolist(), strict=True)
            ]
            answers.append({"user_id": asked["user_id"], "items": items})
        return answers


mlflow.models.set_model(Retrieval())
