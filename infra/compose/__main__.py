"""The init step of docker-compose.yml: shared tables, topics, the databases of MLflow and Airflow. May run again."""

from recsys import station
from recsys.settings import load_settings
from recsys.warehouse import apply_schema


def main() -> dict[str, object]:
    from infra.local.broker import create_topics, topics_of
    from infra.local.stores import create_database

    settings = load_settings()
    apply_schema(settings)
    databases = [name for name in ("mlflow", "airflow") if create_database(settings.postgres_url, name)]
    create_topics(settings)
    return {"databases": databases, "topics": topics_of(settings), "unchanged": not databases}


if __name__ == "__main__":
    station.run(main)
