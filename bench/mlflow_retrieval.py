"""The retrieval of serving, as a model for `mlflow models serve`: history from Redis, exact scores, seen left out.

Logged by its path ("models from code"); its server finds the two addresses in the environment, as serving does.
It logs no impressions and keeps no records, which serving does.
"""

import os
from pathlib import Path

import mlflow
import numpy as np
import redis

from recsys import user_state
from recsys.retriever import Retriever


class Retrieval(mlflow.pyfunc.PythonModel):
    """`{"inputs": [{"user_id", "k"}]}` → one list of (item_id, title, score) for each."""

    def load_context(self, context: object) -> None:
        self._retriever = Retriever(Path(os.environ["RECSYS_MODEL_DIR"]))
        self._store = redis.Redis.from_url(os.environ["RECSYS_REDIS_URL"], decode_responses=True)

    def predict(self, model_input: list[dict[str, str]]) -> list[dict[str, object]]:
        answers = []
        for asked in model_input:
            with self._store.pipeline(transaction=False) as pipeline:
                user_state.queue_read(pipeline, asked["user_id"])
                state = user_state.decode(pipeline.execute())
            catalogue = self._retriever.catalogue
            best, scores = self._retriever.recommend([self._retriever.indices(state.history)], int(asked["k"]))
            found = np.flatnonzero(best[0] >= 0)
            items = [
                {"item_id": catalogue.item_id[i], "title": catalogue.title[i], "score": score}
                for i, score in zip(best[0, found].tolist(), scores[0, found].tolist(), strict=True)
            ]
            answers.append({"user_id": asked["user_id"], "items": items})
        return answers


mlflow.models.set_model(Retrieval())
