"""The registered model as an MLflow pyfunc: histories of item ids in, ranked items out. Logged as code, not pickled.

It answers from the bundle by `recsys.retriever`, the code that judged it and that serves it.
"""

from pathlib import Path

import mlflow.models
import mlflow.pyfunc
import pandas as pd

from recsys.retriever import Retriever


class Recommender(mlflow.pyfunc.PythonModel):
    """Rows of `history` (item ids, oldest first; unknown ones are ignored) → `item_id` and `score`, best first."""

    def load_context(self, context):
        self.retriever = Retriever(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input: pd.DataFrame, params: dict | None = None) -> pd.DataFrame:
        k = (params or {}).get("k", 10)
        histories = [self.retriever.indices(list(history)) for history in model_input["history"]]
        items, scores = self.retriever.recommend(histories, int(k))  # (B, k)
        ids = self.retriever.catalogue.item_id
        return pd.DataFrame(
            {
                "item_id": [[ids[item] for item in row if item >= 0] for row in items],
                "score": [
                    [float(s) for s, item in zip(line, row, strict=True) if item >= 0]
                    for line, row in zip(scores, items, strict=True)
                ],
            }
        )


mlflow.models.set_model(Recommender())
