"""The graph of users and items for Neo4j: CSV files, a script that loads them, and questions to ask there.

    <var_dir>/exports/neo4j/<domain>/users.csv, items.csv, used.csv      nodes, edges; headers as neo4j-admin wants them
    <var_dir>/exports/neo4j/<domain>/load.cypher                         the same through LOAD CSV, for a running server
    <var_dir>/exports/neo4j/<domain>/questions.cypher                    bridges, neighbours, what communities like

No server is needed to write them, and none of ours runs one: they are for who has one. Communities, influence and
participation are those of network.py, so that a question there and a page of the dashboard speak of the same ones.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from recsys.artifacts import DIM_ITEMS, FCT_INTERACTIONS
from recsys.interval import Interval
from recsys.settings import load_settings
from training.analytics.network import Network, analyse
from training.analytics.tables import read

LOAD = """\
// Put the CSV files of this folder into the server's import folder, then: cypher-shell --file load.cypher
CREATE CONSTRAINT user_id IF NOT EXISTS FOR (u:User) REQUIRE u.userId IS UNIQUE;
CREATE CONSTRAINT item_id IF NOT EXISTS FOR (i:Item) REQUIRE i.itemId IS UNIQUE;
LOAD CSV WITH HEADERS FROM 'file:///users.csv' AS row
CALL (row) {
  MERGE (u:User {userId: row['userId:ID(User)']})
  SET u.community = toInteger(row['community:int']), u.influence = toFloat(row['influence:float']),
      u.participation = toFloat(row['participation:float'])
} IN TRANSACTIONS OF 10000 ROWS;
LOAD CSV WITH HEADERS FROM 'file:///items.csv' AS row
CALL (row) {
  MERGE (i:Item {itemId: row['itemId:ID(Item)']})
  SET i.title = row['title'], i.categories = split(row['categories:string[]'], ';'),
      i.community = toInteger(row['community:int']), i.influence = toFloat(row['influence:float']),
      i.participation = toFloat(row['participation:float'])
} IN TRANSACTIONS OF 10000 ROWS;
LOAD CSV WITH HEADERS FROM 'file:///used.csv' AS row
CALL (row) {
  MATCH (u:User {userId: row[':START_ID(User)']}), (i:Item {itemId: row[':END_ID(Item)']})
  MERGE (u)-[used:USED]->(i) SET used.events = toInteger(row['events:int'])
} IN TRANSACTIONS OF 10000 ROWS;
"""

QUESTIONS = """\
// Who bridges communities: many edges, evenly to several of them
MATCH (u:User)-[:USED]->(i:Item) WITH u, count(i) AS items
RETURN u.userId, items, u.participation ORDER BY u.participation * sqrt(items) DESC LIMIT 20;

// What else do those use who used this item
MATCH (:Item {itemId: $item})<-[:USED]-(u:User)-[:USED]->(other:Item)
RETURN other.title, count(DISTINCT u) AS users ORDER BY users DESC LIMIT 20;

// What the communities like
MATCH (i:Item) UNWIND i.categories AS category
RETURN i.community, category, count(*) AS items ORDER BY i.community, items DESC;

// The shortest way between two users
MATCH path = shortestPath((:User {userId: $one})-[:USED*..8]-(:User {userId: $other})) RETURN path;
"""


def write(
    folder: Path, network: Network, items: dict[str, tuple[str, list[str]]], events: dict[tuple[str, str], int]
) -> None:
    """Write the files; every node and every edge of the network once.

    Args:
        items: item_id → title and categories; an item that is not there has its id as title.
        events: (user_id, item_id) → how often.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [
        [int(community), f"{influence:.9g}", f"{participation:.6g}"]
        for community, influence, participation in zip(
            network.community, network.influence, network.participation, strict=True
        )
    ]
    measured = ["community:int", "influence:float", "participation:float"]
    users = len(network.users)
    _csv(
        folder / "users.csv", ["userId:ID(User)", *measured],
        ([user, *row] for user, row in zip(network.users, numbers[:users], strict=True)),
    )  # fmt: skip
    titled = (items.get(item, (item, [])) for item in network.items)
    _csv(
        folder / "items.csv", ["itemId:ID(Item)", "title", "categories:string[]", *measured],
        (
            [item, title, ";".join(name.replace(";", ",") for name in categories), *row]
            for item, (title, categories), row in zip(network.items, titled, numbers[users:], strict=True)
        ),
    )  # fmt: skip
    pairs = ((network.users[user], network.items[item - users]) for user, item in network.edges)
    _csv(
        folder / "used.csv", [":START_ID(User)", ":END_ID(Item)", "events:int"],
        ([user, item, events[user, item]] for user, item in pairs),
    )  # fmt: skip
    (folder / "load.cypher").write_text(LOAD)
    (folder / "questions.cypher").write_text(QUESTIONS)


def _csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Write the files of each domain of the interval that has any interaction."""
    root = load_settings().var_dir / "exports" / "neo4j"
    edges = {}
    for domain in interval.domains:
        pairs = read(
            connection,
            f"select user_id, item_id, count(*) as events from {FCT_INTERACTIONS} where domain = %s"
            " and occurred_at < %s group by 1, 2 order by 1, 2",
            [domain, interval.end],
        )
        edges[domain] = len(pairs)
        if pairs.empty:
            continue
        told = read(connection, f"select item_id, title, categories from {DIM_ITEMS} where domain = %s", [domain])
        items = {row.item_id: (row.title, row.categories or []) for row in told.itertuples()}
        events = {(row.user_id, row.item_id): row.events for row in pairs.itertuples()}
        write(root / domain, analyse(pairs, seed), items, events)
    return {"edges": edges, "folder": str(root), "unchanged": False}
