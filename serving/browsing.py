"""Looking around in the catalogue of the model that answers: by words, category, popularity or year. Pure.

Shapes: I items, N items found.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from recsys.schemas import Domain, Identifier
from serving.contracts import MAX_K, Item, split_commas
from serving.model import ServedModel
from serving.shelf import OfferedModel

MAX_NAMED = 100
"""Items that one request may name."""

MAX_TEXT = 100
"""Characters of a search."""

CATEGORIES_TOLD = 24
"""Categories of a domain that the overview names, the largest first."""

Order = Literal["popular", "newest", "title"]


class ItemsWanted(BaseModel):
    """Which items, and in which order. All conditions hold at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: Domain | None = Field(None, description="only items of this domain")
    category: str | None = Field(None, max_length=MAX_TEXT, description="only items of this category, spelled exactly")
    text: str = Field("", max_length=MAX_TEXT, description="words that the title holds, in any order, case or accent")
    item_ids: Annotated[list[Identifier], BeforeValidator(split_commas)] = Field(
        [], max_length=MAX_NAMED, description="only these, comma-separated, in this order; unknown ones are left out"
    )
    order: Order = Field("popular", description="ties, and items without a year, by popularity")
    k: int = Field(24, ge=1, le=MAX_K, description="how many")
    offset: int = Field(0, ge=0, le=10_000_000, description="how many are skipped")


class CatalogueItem(BaseModel):
    """One item as it is known, without a score: nobody was asked."""

    item_id: str
    title: str
    domain: str
    categories: list[str]
    published_year: int | None


class ItemsFound(BaseModel):
    """A page of the catalogue."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    total: int = Field(ge=0, description="how many fit, shown or not")
    items: list[CatalogueItem]


class CategorySize(BaseModel):
    category: str
    items: int


class DomainSize(BaseModel):
    domain: str
    items: int = Field(description="available ones")
    categories: list[CategorySize] = Field(description=f"the {CATEGORIES_TOLD} largest")


class CatalogueOverview(BaseModel):
    """What the model that answers now knows."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    model_version: str
    kind: str
    cut_id: str
    as_of: str
    items: int
    domains: list[DomainSize]
    variants: dict[str, float] = Field(description="of the running experiment, with their shares of the users")
    models: list[OfferedModel] = Field(description="whose lists can be previewed, the champion first")


class Browser:
    """The catalogue of one model, with the orders and words that make looking around cheap. Read-only once made."""

    def __init__(self, model: ServedModel):
        catalogue, popularity = model.retriever.catalogue, model.retriever.popularity
        self.model = model
        year = np.array([0 if value is None else value for value in catalogue.published_year])  # (I,)
        by_title = sorted(range(len(catalogue.title)), key=lambda item: catalogue.title[item].casefold())
        self._orders: dict[Order, np.ndarray] = {  # each (I,)
            "popular": np.argsort(-popularity, kind="stable"),
            "newest": np.lexsort((-popularity, -year)),
            "title": np.array(by_title, dtype=np.int64),
        }
        self._words = [plain(title) for title in catalogue.title]
        self._categories: dict[str, list[int]] = {}
        for item, names in enumerate(catalogue.categories):
            for name in names:
                self._categories.setdefault(name, []).append(item)

    def find(self, wanted: ItemsWanted) -> ItemsFound:
        """Return the page of available items that is asked for."""
        fits = self.model.allowed(wanted.domain).copy()  # (I,)
        if wanted.category is not None:
            of_category = np.zeros_like(fits)
            of_category[self._categories.get(wanted.category, [])] = True
            fits &= of_category
        named = list(dict.fromkeys(self.model.retriever.indices(wanted.item_ids).tolist()))
        order = np.array(named, dtype=np.int64) if wanted.item_ids else self._orders[wanted.order]
        found = order[fits[order]]  # (N,)
        if words := plain(wanted.text).split():
            found = np.array([item for item in found if all(word in self._words[item] for word in words)], np.int64)
        page = found[wanted.offset : wanted.offset + wanted.k].tolist()
        return ItemsFound(model_version=self.model.version, total=len(found), items=described(self.model, page))

    def overview(self, variants: dict[str, float], models: list[OfferedModel]) -> CatalogueOverview:
        """Return what there is to look at."""
        manifest, catalogue = self.model.manifest, self.model.retriever.catalogue
        domains = []
        for domain in self.model.domains:
            available = np.flatnonzero(self.model.allowed(domain)).tolist()
            sizes = Counter(name for item in available for name in catalogue.categories[item])
            largest = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:CATEGORIES_TOLD]
            told = [CategorySize(category=name, items=items) for name, items in largest]
            domains.append(DomainSize(domain=domain, items=len(available), categories=told))
        return CatalogueOverview(
            model=manifest.model,
            model_version=self.model.version,
            kind=manifest.kind,
            cut_id=manifest.cut_id,
            as_of=manifest.as_of,
            items=self.model.retriever.n_items,
            domains=domains,
            variants=variants,
            models=models,
        )


def plain(text: str) -> str:
    """Return a text as searches compare it: without case and accents."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in split if not unicodedata.combining(letter))


def described(model: ServedModel, items: Sequence[int]) -> list[CatalogueItem]:
    """Return these items of the catalogue, in their order."""
    catalogue = model.retriever.catalogue
    return [
        CatalogueItem(
            item_id=catalogue.item_id[item],
            title=catalogue.title[item],
            domain=catalogue.domain[item],
            categories=catalogue.categories[item],
            published_year=catalogue.published_year[item],
        )
        for item in items
    ]


class KnownUser(BaseModel):
    """A user whom the online store knows."""

    user_id: str
    history_items: int = Field(ge=1)
    domains: list[str] = Field(description="of the latest items, where the model knows them, most items first")


class KnownUsers(BaseModel):
    """Some users of the online store: a sample for people who want to look at one, not a list of all."""

    users: list[KnownUser]


class UserView(BaseModel):
    """A user as an answer would see them now."""

    user_id: str
    variant: str
    version: int = Field(description="moved by each of the user's events, once they have reached the online store")
    history_items: int
    features: dict[str, float]
    latest_items: list[CatalogueItem] = Field(description="of the history, the latest first; those the model knows")


class Preview(BaseModel):
    """What a variant or another model would answer this user; nobody was shown anything."""

    model_config = ConfigDict(protected_namespaces=())

    user_id: str
    variant: str
    model: str
    model_version: str
    rung: str
    items: list[Item]


def domains_of(model: ServedModel, history: Sequence[str]) -> list[str]:
    """Return the domains of a history's known items, that with most items first."""
    catalogue = model.retriever.catalogue
    counted = Counter(catalogue.domain[item] for item in model.retriever.indices(history).tolist())
    return sorted(counted, key=lambda domain: (-counted[domain], domain))
