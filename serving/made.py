"""A list as it was made, before it is put into words.

A model of pydantic for each item costs several times what its text does, so the hot path goes without: places of the
catalogue become the answer's text, its impressions and its record, and `contract` names them for the doors that hand
answers to other code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from serving.contracts import Answer
from serving.model import ServedModel


@dataclass(frozen=True)
class MadeAnswer:
    """An answer by places of the catalogue."""

    request_id: str
    user_id: str
    variant: str
    model: ServedModel
    rung: str
    items: Sequence[int]
    """Places in the model's catalogue, best first."""
    scores: Sequence[float]

    def contract(self) -> Answer:
        """Return it as the API's type."""
        return Answer.model_validate({**self._head(), "items": named(self.model, self.items, self.scores)})

    def text(self) -> bytes:
        """Return the JSON of `contract`, without making one."""
        head, texts = to_json(self._head())[:-1], self.model.item_texts
        numbers = to_json(self.scores, inf_nan_mode="null")[1:-1].split(b",") if self.items else []
        items = b",".join([
            b'{"rank":%d,"score":%b,%b' % (rank, score, texts[item])
            for rank, (item, score) in enumerate(zip(self.items, numbers, strict=True), start=1)
        ])  # fmt: skip
        return b'%b,"items":[%b]}' % (head, items)

    def _head(self) -> dict[str, str]:
        return {
            "request_id": self.request_id,
            "user_id": self.user_id,
            "variant": self.variant,
            "model": self.model.manifest.model,
            "model_version": self.model.version,
            "rung": self.rung,
        }


def named(model: ServedModel, items: Sequence[int], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return these items of the catalogue as a list shows them, ranked from 1: plain values of `Item`."""
    catalogue = model.retriever.catalogue
    item_id, title, domain, categories = catalogue.item_id, catalogue.title, catalogue.domain, catalogue.categories
    return [
        {
            "rank": rank,
            "score": score,
            "item_id": item_id[item],
            "title": title[item],
            "domain": domain[item],
            "categories": categories[item],
        }
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
    ]
