"""A synthetic world as files: CSV in the layout of etl.sources.synthetic, impressions as the topic has them, truths.

<folder>/synthetic/<domain>/synthetic_interactions.csv, synthetic_items.csv, synthetic_users.csv
<folder>/synthetic/synthetic_impressions.jsonl   messages of the topic impressions.v1; their clicks are interactions
<folder>/synthetic/truths.json                   what was planted, and what came of it
<folder>/synthetic/truths_users.csv              segment, tastes and variant of every user; no source reads it
"""

import json
import shutil
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from etl.synthetic.activity import DEVICES, SHOWN, Answers, Events, act, answer, clicks_of, hours_of_day
from etl.synthetic.population import CATEGORIES, SEGMENTS, Population, World, populate
from recsys.assignment import assign
from recsys.columns import DOMAINS, EVENT_TYPES
from recsys.errors import RecsysError

NAME = "synthetic"
SALT = "synthetic-experiment"
VARIANTS = {"control": 0.5, "treatment": 0.5}
EVENTS_AN_ANSWER = 10


def synthesize(world: World, folder: Path) -> dict[str, Any]:
    """Write the world's files below `folder` and return the truths. The same world gives the same bytes.

    Raises:
        RecsysError: there is something at that place which is no synthetic world.
    """
    target = folder / NAME
    if target.exists() and not (target / "truths.json").is_file():
        raise RecsysError("--to", target, "It holds no synthetic world; name another folder, or take this one away")
    rng = np.random.default_rng(world.seed)
    population = populate(world, rng)
    users = _user_ids(world)
    variant = np.array([assign(user, SALT, VARIANTS) for user in users.to_pylist()])
    events = act(world, population, rng)
    answers = answer(world, population, rng, variant == "treatment", world.events // EVENTS_AN_ANSWER)
    clicks = clicks_of(answers)

    draft = folder / f".{NAME}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    everything = Events(
        **{name: np.concatenate([values, getattr(clicks, name)]) for name, values in vars(events).items()}
    )
    context, revenue = _contexts(population, everything)
    for number, domain in enumerate(DOMAINS):
        home = draft / domain
        home.mkdir()
        _write(home / "synthetic_interactions.csv", _interactions(everything, number, users, context))
        _write(home / "synthetic_items.csv", _items(world, population, number))
        here = (population.home == number) | (population.second == number)
        _write(
            home / "synthetic_users.csv",
            pa.table({"user_id": users.filter(pa.array(here)), "label": _label(here.sum())}),
        )
    (draft / "synthetic_impressions.jsonl").write_bytes(_impressions(world, answers, users, variant))
    _write(draft / "truths_users.csv", _tastes(population, users, variant))
    truths = _truths(world, population, everything, answers, variant, revenue)
    (draft / "truths.json").write_text(json.dumps(truths, indent=2, default=str) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return truths


def _write(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))


def _label(count: int) -> pa.Array:
    return pa.array(np.full(count, NAME))


def _numbered(prefix: str, numbers: np.ndarray) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width=7, padding="0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _user_ids(world: World) -> pa.Array:
    return _numbered(f"{NAME}:u", np.arange(world.user_count))


def _item_ids(domain: int, numbers: np.ndarray) -> pa.Array:
    return _numbered(f"{NAME}:{DOMAINS[domain]}-", numbers)


def _contexts(population: Population, events: Events) -> tuple[pa.Array, np.ndarray]:
    """Return the JSON text of every event's context, and its revenue in whole cents."""
    price = np.nan_to_num(population.price[events.domain, events.item])
    cents = np.round(price * 100).astype(np.int64) * events.quantity
    device = pa.array(DEVICES).take(pa.array(events.device))
    session = pa.array(events.session).cast(pa.string())
    plain = pc.binary_join_element_wise('{"session_id":"s', session, '","device":"', device, '"}', "")
    bought = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(plain, 0, -1), ',"quantity":"', pa.array(events.quantity).cast(pa.string()),
        '","price":"', _euros(np.round(price * 100).astype(np.int64)), '","revenue":"', _euros(cents), '"}', "",
    )  # fmt: skip
    clicked = pc.binary_join_element_wise('{"request_id":"', _numbered(f"{NAME}-", events.request), '"}', "")
    is_click, is_bought = pa.array(events.request >= 0), pa.array(events.quantity > 0)
    return pc.if_else(is_click, clicked, pc.if_else(is_bought, bought, plain)), cents


def _euros(cents: np.ndarray) -> pa.Array:
    rest = pc.utf8_lpad(pa.array(cents % 100).cast(pa.string()), width=2, padding="0")
    return pc.binary_join_element_wise(pa.array(cents // 100).cast(pa.string()), rest, ".")


def _interactions(events: Events, domain: int, users: pa.Array, context: pa.Array) -> pa.Table:
    here = np.flatnonzero(events.domain == domain)
    rating = events.rating[here]
    return pa.table(
        {
            "event": _numbered(f"{NAME}-e", here),
            "user_id": users.take(pa.array(events.user[here])),
            "item_id": _item_ids(domain, events.item[here]),
            "event_type": pa.array(EVENT_TYPES).take(pa.array(events.kind[here])),
            "rating": pa.array(rating, mask=np.isnan(rating)),
            "occurred_ms": pa.array(events.occurred_ms[here]),
            "context": context.take(pa.array(here)),
        }
    )


def _items(world: World, population: Population, domain: int) -> pa.Table:
    numbers = np.arange(world.item_count)
    price = population.price[domain]
    kind = pa.array([f"{DOMAINS[domain]} category {number}" for number in range(CATEGORIES)])
    category = kind.take(pa.array(population.category[domain]))
    title = pc.binary_join_element_wise(f"Synthetic {DOMAINS[domain]} item", pa.array(numbers).cast(pa.string()), " ")
    return pa.table(
        {
            "item_id": _item_ids(domain, numbers),
            "title": title,
            "text": pc.binary_join_element_wise("Made up; of", category, " "),
            "category": category,
            "creator": _numbered("Maker ", numbers % 50),
            "price": pa.array(price, mask=np.isnan(price)),
            "published_year": pa.array(population.published_year[domain]),
        }
    )


def _impressions(world: World, answers: Answers, users: pa.Array, variant: np.ndarray) -> bytes:
    """Return the impressions as JSON lines, ascending by answer and rank."""
    request = np.repeat(np.arange(len(answers.user)), SHOWN)
    rank = np.tile(np.arange(1, SHOWN + 1), len(answers.user))
    user, domain = answers.user[request], answers.domain[request]
    names = [_item_ids(number, np.arange(world.item_count)) for number in range(len(DOMAINS))]
    item = pa.concat_arrays(names).take(pa.array(domain * world.item_count + answers.items.ravel()))
    shown_at = pc.strftime(pa.array(answers.shown_ms[request]).cast(pa.timestamp("ms")), "%Y-%m-%dT%H:%M:%SZ")
    ranks = pa.array(rank).cast(pa.string())
    request_id = _numbered(f"{NAME}-", request)
    members = {
        "event_id": pc.binary_join_element_wise(request_id, ranks, "-"),
        "request_id": request_id,
        "user_id": users.take(pa.array(user)),
        "item_id": item,
        "domain": pa.array(DOMAINS).take(pa.array(domain)),
        "variant": pa.array(variant[user]),
        "model_version": _label(len(rank)),
        "rung": pa.array(np.full(len(rank), "popular")),
        "shown_at": shown_at,
    }
    parts: list[Any] = ["{"]
    for name, values in members.items():
        parts += [f'"{name}":"', values, '",']
    score = pa.array(1.0 / rank).cast(pa.string())
    parts += ['"rank":', ranks, ',"score":', score, f',"propensity":{1.0 / world.item_count}}}', ""]
    return ("\n".join(pc.binary_join_element_wise(*parts).to_pylist()) + "\n").encode()


def _tastes(population: Population, users: pa.Array, variant: np.ndarray) -> pa.Table:
    domain = pa.array([*DOMAINS, None])
    is_cold = np.zeros(len(users), bool)
    is_cold[population.cold_users] = True
    return pa.table(
        {
            "user_id": users,
            "segment": pa.array(SEGMENTS).take(pa.array(population.segment)),
            "home": domain.take(pa.array(population.home)),
            "favourite": pa.array(population.favourite),
            "second": domain.take(pa.array(np.where(population.second < 0, len(DOMAINS), population.second))),
            "second_favourite": pa.array(population.second_favourite, mask=population.second < 0),
            "variant": pa.array(variant),
            "is_cold": pa.array(is_cold),
        }
    )


def _truths(
    world: World, population: Population, events: Events, answers: Answers, variant: np.ndarray, cents: np.ndarray
) -> dict[str, Any]:
    """Return what was planted (`planted`) and plain counts of what was drawn (`drawn`)."""
    crosses = population.second >= 0
    carried = population.favourite[crosses] == population.second_favourite[crosses]
    return {
        "label": "synthetic: every user, item and event is made up",
        "planted": {
            **asdict(world),
            "segments": list(SEGMENTS),
            "favourite_category_of_segment": {name: 1 + place for place, name in enumerate(SEGMENTS)},
            "drift_date": world.first_day + timedelta(days=world.drift_day),
            "drifting_category": 0,
            "hours_of_day": hours_of_day(world).round(6).tolist(),
            "salt": SALT,
            "variants": VARIANTS,
        },
        "drawn": {
            "events": int((events.request < 0).sum()),
            "clicks": int((events.request >= 0).sum()),
            "impressions": int(answers.items.size),
            "users": world.user_count,
            "items_of_each_domain": world.item_count,
            "segment_users": {n: int((population.segment == place).sum()) for place, n in enumerate(SEGMENTS)},
            "variant_users": {name: int((variant == name).sum()) for name in VARIANTS},
            "cross_domain_users": int(crosses.sum()),
            "transferred_share": float(carried.mean()),
            "cold_users": len(population.cold_users),
            "cold_items_of_each_domain": population.cold_items.shape[1],
            "revenue": {
                name: int(cents[events.domain == place].sum()) / 100 for place, name in enumerate(DOMAINS)
            },
        },
    }  # fmt: skip
