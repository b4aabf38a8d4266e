"""What a list says of each item, as JSON that is written once.

An item's names lie all over a process's memory, and a list of ten items would collect forty of them anew for every
answer; here an item is one place.
"""

from array import array
from itertools import accumulate

from pydantic_core import to_json

from recsys.bundle import Catalogue


class ItemTexts:
    """The part of `Item` that no list changes: some 150 bytes an item, one behind the other."""

    def __init__(self, catalogue: Catalogue):
        columns = (catalogue.item_id, catalogue.title, catalogue.domain, catalogue.categories)
        texts = [
            to_json({"item_id": item_id, "title": title, "domain": domain, "categories": categories})[1:]
            for item_id, title, domain, categories in zip(*columns, strict=True)
        ]
        self._texts = b"".join(texts)
        self._ends = array("q", accumulate(map(len, texts), initial=0))

    def __getitem__(self, item: int) -> bytes:
        """Return the JSON of this item of the catalogue, behind its opening brace."""
        return self._texts[self._ends[item] : self._ends[item + 1]]
