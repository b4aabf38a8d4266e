"""Where the providers keep their files, and under which terms. Addresses are those of the official sites."""

from collections.abc import Iterator
from dataclasses import dataclass

from etl.sources.amazon import CATEGORIES_2023
from recsys.errors import RecsysError

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets"
SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
GOODBOOKS = "https://raw.githubusercontent.com/zygmuntz/goodbooks-10k/master"


@dataclass(frozen=True)
class Remote:
    """One file: its address, the folder below `--to` that it belongs to, and where its MD5 sum is published, if it is.

    An archive (`.zip`) holds that folder itself and is unpacked.
    """

    url: str
    folder: str = ""
    md5_url: str | None = None

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def place(self) -> str:
        """Path of the file below `--to`."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(frozen=True)
class Provider:
    """A source as it can be fetched: named releases, the one that is fetched without a name, terms and a manual way."""

    licence: str
    by_hand: str
    releases: dict[str, tuple[Remote, ...]]
    default: str | None


def _movielens(name: str, has_sum: bool = True) -> tuple[Remote, ...]:
    url = f"{GROUPLENS}/{name}.zip"
    return (Remote(url, md5_url=f"{url}.md5" if has_sum else None),)


def _amazon_2023(category: str) -> tuple[Remote, ...]:
    raw = f"{MCAULEY}/data/amazon_2023/raw"
    names = (f"review_categories/{category}.jsonl.gz", f"meta_categories/meta_{category}.jsonl.gz")
    return tuple(Remote(f"{raw}/{name}", "amazon-2023") for name in names)


def _amazon_2018(category: str) -> tuple[Remote, ...]:
    names = (f"categoryFilesSmall/{category}_5.json.gz", f"metaFiles2/meta_{category}.json.gz")
    return tuple(Remote(f"{MCAULEY}/data/amazon_v2/{name}", "amazon-2018") for name in names)


def _amazon_2014(category: str) -> tuple[Remote, ...]:
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    return tuple(Remote(f"{SNAP}/{name}", "amazon-2014") for name in names)


def _goodreads(*names: str) -> tuple[Remote, ...]:
    return tuple(Remote(f"{MCAULEY}/gdrive/goodreads/{name}", "goodreads") for name in names)


def _goodreads_genre(genre: str) -> tuple[Remote, ...]:
    by_genre = (f"byGenre/goodreads_{kind}_{genre}.json.gz" for kind in ("interactions", "reviews", "books"))
    return _goodreads(*by_genre, *GOODREADS_LISTS)


GOODREADS_LISTS = ("goodreads_book_authors.json.gz", "goodreads_book_genres_initial.json.gz")
GENRES = (
    "children", "comics_graphic", "fantasy_paranormal", "history_biography", "mystery_thriller_crime", "poetry",
    "romance", "young_adult",
)  # fmt: skip
CATEGORIES_2018 = (
    "All_Beauty", "AMAZON_FASHION", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards",
    "Grocery_and_Gourmet_Food", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games",
    "Video_Games",
)  # fmt: skip
CATEGORIES_2014 = (
    "Amazon_Instant_Video", "Apps_for_Android", "Automotive", "Baby", "Beauty", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics",
    "Grocery_and_Gourmet_Food", "Health_and_Personal_Care", "Home_and_Kitchen", "Kindle_Store", "Movies_and_TV",
    "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Sports_and_Outdoors",
    "Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games",
)  # fmt: skip

PROVIDERS = {
    "movielens": Provider(
        licence="MovieLens is for research; no commercial use without permission of GroupLens, University of "
        "Minnesota; ml-100k and ml-1m may not be passed on. Cite Harper and Konstan 2015.",
        by_hand="Fetch a release from https://grouplens.org/datasets/movielens/ and unpack it there, e.g. as ml-1m/",
        releases={
            "ml-latest-small": _movielens("ml-latest-small", has_sum=False),
            **{name: _movielens(name) for name in ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m")},
            "ml-latest": _movielens("ml-latest", has_sum=False),
        },
        default="ml-latest-small",
    ),
    "amazon": Provider(
        licence="Amazon Reviews are for research; they come without a formal licence. Cite Hou et al. 2024 (2023), "
        "Ni et al. 2019 (2018), McAuley et al. 2015 (2014).",
        by_hand="Fetch a category's reviews and metadata at https://amazon-reviews-2023.github.io/ and put them there",
        releases={
            **{f"2023/{category}": _amazon_2023(category) for category in CATEGORIES_2023},
            **{f"2018/{category}": _amazon_2018(category) for category in CATEGORIES_2018},
            **{f"2014/{category}": _amazon_2014(category) for category in CATEGORIES_2014},
        },
        default="2023/All_Beauty",
    ),
    "goodreads": Provider(
        licence="The UCSD Book Graph is for academic use only; not to be passed on or used commercially. Cite Wan and "
        "McAuley 2018, Wan et al. 2019.",
        by_hand="Fetch the files from https://mengtingwan.github.io/data/goodreads.html and put them there",
        releases={
            **{genre: _goodreads_genre(genre) for genre in GENRES},
            "all": _goodreads("goodreads_interactions_dedup.json.gz", "goodreads_books.json.gz", *GOODREADS_LISTS),
            "csv": _goodreads(
                "goodreads_interactions.csv", "user_id_map.csv", "book_id_map.csv", "goodreads_books.json.gz",
                *GOODREADS_LISTS,
            ),
        },
        default="poetry",
    ),
    "goodbooks": Provider(
        licence="goodbooks-10k: CC BY-SA 4.0. Cite Zajac 2017.",
        by_hand="Fetch ratings.csv, to_read.csv, books.csv, book_tags.csv and tags.csv from "
        "https://github.com/zygmuntz/goodbooks-10k and put them there",
        releases={
            "goodbooks-10k": tuple(
                Remote(f"{GOODBOOKS}/{name}.csv", "goodbooks-10k")
                for name in ("ratings", "to_read", "books", "book_tags", "tags")
            )
        },
        default="goodbooks-10k",
    ),
    "reddit": Provider(
        licence="Reddit content belongs to its authors, under Reddit's terms; the dumps have no formal licence.",
        by_hand="The dumps are published as a torrent (https://academictorrents.com, `reddit comments/submissions`), "
        "not over HTTP: put RC_YYYY-MM.zst and RS_YYYY-MM.zst there",
        releases={},
        default=None,
    ),
}  # fmt: skip


def releases_of(source: str, names: list[str]) -> Iterator[tuple[str, tuple[Remote, ...]]]:
    """Yield the named releases of a source, or its default one; none where nothing is published over HTTP.

    Raises:
        RecsysError: it has no release of that name.
    """
    provider = PROVIDERS[source]
    for name in names or ([provider.default] if provider.default else []):
        if name not in provider.releases:
            known = ", ".join(provider.releases) or "none"
            raise RecsysError(f"release of {source}", name, f"It has: {known}")
        yield name, provider.releases[name]
