"""What only people look at is built by `recsys_insight`: the pipeline neither builds it nor leans on it."""

import re

import yaml

from recsys.settings import HOME

MODELS = HOME / "dbt" / "models"
FOLDER = {path.stem for path in (MODELS / "marts" / "analytics" / "insight").glob("*.sql")}


def tagged() -> set[str]:
    """Return the models that bear the tag."""
    pages = [yaml.safe_load(path.read_text()) or {} for path in MODELS.rglob("*.yml")]
    return {
        model["name"]
        for page in pages
        for model in page.get("models", [])
        if "insight" in model.get("config", {}).get("tags", [])
    }


def test_every_model_of_the_folder_bears_the_tag_and_keeps_its_contract():
    page = yaml.safe_load((MODELS / "marts" / "analytics" / "insight" / "_insight.yml").read_text())

    assert len(FOLDER) > 3
    assert FOLDER - tagged() == set()
    for model in page["models"]:
        assert model["config"]["contract"] == {"enforced": True}, model["name"]
        assert [constraint["type"] for constraint in model["constraints"]] == ["primary_key"], model["name"]
        assert all(column["data_type"] and column["description"] for column in model["columns"]), model["name"]


def test_nothing_that_the_pipeline_builds_reads_them():
    others = [path for path in MODELS.rglob("*.sql") if path.stem not in tagged()]
    read = {path.stem: set(re.findall(r"ref\('(\w+)'\)", path.read_text())) for path in others}

    assert len(read) > 10
    assert {name for name, refs in read.items() if refs & tagged()} == set()


def test_the_pipeline_leaves_them_out_and_the_insight_takes_them():
    pipeline, insight = ((HOME / "dags" / f"recsys_{name}.py").read_text() for name in ("pipeline", "insight"))

    assert '"--exclude", INSIGHT' in pipeline
    assert '"--select", "marts.analytics", INSIGHT' in insight
    assert 'INSIGHT = "tag:insight"' in (HOME / "dags" / "station_operator.py").read_text()
