"""The rules of docs/design.md hold in this tree, and each of them can be broken."""

import shutil
import subprocess
from pathlib import Path

import pytest

from recsys.settings import Settings
from tests.architecture import rules
from tests.architecture.settings_table import variable

HOME = Path(__file__).resolve().parents[2]
ROOMS = {
    "dags", "etl", "dbt", "expectations", "feature_repo", "training", "serving", "streaming", "monitoring",
    "experiments", "dashboard", "storefront", "infra/local", "infra/compose", "bench",
}  # fmt: skip
SERVICES = {"postgres", "redis", "kafka", "mlflow", "airflow", "serving", "streaming"}

# Each rule as it is run on our tree.
RULES = {
    "R1 R2 imports": lambda root: rules.import_contracts(root),
    "R3 dag imports": lambda root: rules.dag_imports(root),
    "R4 packages under contracts": lambda root: rules.packages_outside_contracts(root),
    "R5 no foreign python": lambda root: rules.foreign_python(root),
    "R6 environment and clock": lambda root: rules.banned_apis(root, HOME / "pyproject.toml"),
    "R6 clock in SQL": lambda root: rules.sql_clocks(root),
    "R10 names": lambda root: rules.vague_names(root),
    "R10 length": lambda root: rules.long_files(root),
    "R11 settings": lambda root: rules.undocumented(
        {variable(name, field) for name, field in Settings.model_fields.items()}, root / "docs" / "settings.md"
    ),
    "R11 dags": lambda root: rules.undocumented(rules.dag_ids(root), root / "docs" / "design.md"),
    "R11 metrics": lambda root: rules.undocumented(rules.metric_names(root), root / "docs" / "metrics.md"),
    "R11 endpoints": lambda root: rules.undocumented(rules.endpoints(root), root / "docs" / "api.md"),
    "runbooks": lambda root: rules.runbook_gaps(root, SERVICES),
    "machine details": lambda root: rules.machine_details(root),
    "dependencies": lambda root: rules.unexplained_dependencies(root),
    "make targets": lambda root: rules.missing_targets(root),
    "station readmes": lambda root: rules.incomplete_readmes(root, ROOMS),
    "assertions": lambda root: rules.tests_without_assertion(root),
}

DAG = "from airflow.sdk import DAG\n"
CONTRACTS = """
[tool.importlinter]
root_packages = ["recsys", "etl", "serving"]
include_external_packages = true
[[tool.importlinter.contracts]]
id = "R1"
name = "stations"
type = "layers"
layers = ["etl | serving", "recsys"]
[[tool.importlinter.contracts]]
id = "R2"
name = "kernel"
type = "forbidden"
source_modules = ["recsys"]
forbidden_modules = ["torch"]
"""

# A tree that breaks nothing, small enough to see; every planted fault changes or adds the files named with it.
SOUND = {
    "pyproject.toml": CONTRACTS,
    "recsys/__init__.py": "",
    "recsys/artifacts.py": 'DAG_PIPELINE = "recsys_pipeline"\nRAW_ITEMS = "raw.items"\n',
    "recsys/schema.sql": "create table raw.items (item_id text);\n",
    "etl/__init__.py": "from recsys import artifacts\n",
    "serving/__init__.py": "",
    "serving/app.py": (
        "from prometheus_client import Counter\nHITS = Counter('recsys_hits', 'hits')\n"
        "@app.get('/v1/{user:path}/list')\ndef listed(): ...\n"
    ),
    "dags/pipeline.py": DAG + "import station_operator\nfrom recsys import artifacts\ntask = station('land_raw')\n",
    "dags/station_operator.py": DAG,
    "feature_repo/features.py": "",
    "dbt/models/stg.sql": "select 1\n",
    "docs/settings.md": "".join(f"| `{variable(name, field)}` |\n" for name, field in Settings.model_fields.items()),
    "docs/design.md": "`recsys_pipeline`\n",
    "docs/metrics.md": "`recsys_hits_total`\n",
    "docs/api.md": "`GET /v1/{user}/list`\n",
    "docs/runbooks/README.md": "",
    "docs/runbooks/land_raw.md": "",
    **{f"docs/runbooks/{service}_down.md": "" for service in SERVICES},
    "docs/decisions/0008-dependencies.md": "| `numpy` | arrays |\n",
    "requirements/platform.in": "# arrays\nnumpy==2.4.6\n",
    "requirements/overrides.txt": "never ; sys_platform == 'never'\n",
    "README.md": "Run `make demo`; make sure that it is green.\n",
    "Makefile": "VERSION := 1\ndemo: up\n\ttrue\nup:\n\ttrue\n",
    "tests/test_sound.py": "def test_sound():\n    assert True\n",
    **{f"{room}/README.md": "| reads | a |\n| writes | b |\n| run | c |\n| owner | d |\n" for room in ROOMS},
}

PLANTED = [
    ("R1 R2 imports", {"etl/land.py": "def land():\n    import serving.app\n"}, "serving.app"),
    ("R1 R2 imports", {"recsys/model.py": "import torch\n"}, "torch"),
    ("R1 R2 imports", {"recsys/model.py": "from etl import land\n", "etl/land.py": ""}, "recsys"),
    ("R3 dag imports", {"dags/pipeline.py": DAG + "def work():\n    import etl.land\n"}, "etl.land"),
    ("R3 dag imports", {"dags/pipeline.py": DAG + "def work():\n    from pandas import DataFrame\n"}, "pandas"),
    ("R3 dag imports", {"dags/pipeline.py": DAG + "from recsys.settings import load_settings\n"}, "recsys.settings"),
    ("R3 dag imports", {"dags/pipeline.py": DAG + "import importlib\nimportlib.import_module('torch')\n"}, "torch"),
    ("R3 dag imports", {"dags/pipeline.py": DAG + "__import__('tor' + 'ch')\n"}, "?"),
    ("R4 packages under contracts", {"ranking/core/model.py": ""}, "ranking/ is under no"),
    ("R4 packages under contracts", {"etl/__init__.py": None}, "name etl, which"),
    ("R4 packages under contracts", {"etl/__init__.py": None, "etl/land.py": ""}, "etl/ has no __init__.py"),
    ("R5 no foreign python", {"dbt/macros/dates.py": ""}, "dbt/macros/dates.py"),
    ("R5 no foreign python", {"feature_repo/test_features.py": ""}, "test_features.py"),
    ("R5 no foreign python", {"feature_repo/features.py": None}, "exactly features.py"),
    ("R6 environment and clock", {"etl/land.py": "import os\nos.environ['HOME']\n"}, "os.environ"),
    ("R6 environment and clock", {"etl/land.py": "from os import getenv\ngetenv('HOME')\n"}, "os.getenv"),
    ("R6 environment and clock", {"etl/land.py": "from datetime import datetime\ndatetime.now()\n"}, "now"),
    ("R6 environment and clock", {"dags/pipeline.py": "import datetime\ndatetime.date.today()\n"}, "today"),
    ("R6 environment and clock", {"recsys/model.py": "import time\ntime.time()\n"}, "time.time"),
    ("R6 clock in SQL", {"dbt/models/stg.sql": "select *\nfrom t where at < now()\n"}, "stg.sql:2"),
    ("R6 clock in SQL", {"dbt/models/stg.sql": "select CURRENT_DATE\n"}, "stg.sql:1"),
    ("R10 names", {"etl/utils.py": ""}, "etl/utils.py"),
    ("R10 names", {"etl/common/dates.py": ""}, "etl/common/dates.py"),
    ("R10 length", {"etl/land.py": "a = 1\n" * 401}, "401 lines"),
    ("R11 settings", {"docs/settings.md": "`RECSYS_POSTGRES_URL_OLD`\n"}, "RECSYS_POSTGRES_URL does"),
    ("R11 dags", {"dags/other.py": DAG + "DAG(dag_id='recsys_other')\n"}, "recsys_other"),
    ("R11 dags", {"docs/design.md": "`recsys_pipeline_old`\n"}, "recsys_pipeline"),
    ("R11 metrics", {"docs/metrics.md": "`recsys_hits_total_old`\n"}, "recsys_hits_total"),
    ("R11 endpoints", {"docs/api.md": "`GET /v2/v1/{user}/list`\n"}, "/v1/{user}/list"),
    ("R11 endpoints", {"docs/api.md": None}, "/v1/{user}/list"),
    ("runbooks", {"docs/runbooks/land_raw.md": None}, "land_raw.md is missing"),
    ("runbooks", {"dags/more.py": DAG + "@task\ndef choose(): ...\n"}, "choose.md is missing"),
    ("runbooks", {"docs/runbooks/gone.md": ""}, "gone.md is about nothing"),
    ("machine details", {"docs/notes.md": "see /{}/main\n".format("work")}, "machine path"),
    ("machine details", {"etl/land.py": "A = '{}://host/a-1.0.jar'\n".format("https")}, "download address"),
    ("machine details", {"requirements/a.txt": "--{}-url somewhere\n".format("index")}, "registry"),
    ("machine details", {".npmrc": "registry = {}://mirror.invalid/\n".format("http")}, "registry"),
    ("dependencies", {"requirements/test.in": "-c platform.txt\nPyTest_xdist==3\n"}, "pytest-xdist has no reason"),
    ("dependencies", {"requirements/platform.in": "# nothing\n"}, "explains numpy"),
    ("make targets", {"README.md": "`make demo` and `make magic`\n"}, "make magic"),
    ("make targets", {"README.md": "nothing\n"}, "promises no make target"),
    ("station readmes", {"etl/README.md": "| reads | a |\n| writes | b |\n| run | c |\n"}, "does not say `owner`"),
    ("station readmes", {"serving/README.md": None}, "serving/README.md"),
    ("assertions", {"tests/test_x.py": "def test_x():\n    print('fine')\n"}, "test_x asserts nothing"),
]  # fmt: skip


@pytest.fixture
def plant(tmp_path):
    """Return a function that writes the sound tree with some files changed (None: removed), as a git repository."""

    def write(changes: dict[str, str | None]) -> Path:
        for name, text in {**SOUND, **changes}.items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        return tmp_path

    return write


@pytest.mark.parametrize("rule", RULES)
def test_our_tree_keeps_the_rule(rule):
    assert RULES[rule](HOME) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_tree_passes(rule, plant):
    assert RULES[rule](plant({})) == []


@pytest.mark.parametrize(("rule", "changes", "expected"), PLANTED)
def test_a_planted_fault_is_found(rule, changes, expected, plant):
    assert expected in "\n".join(RULES[rule](plant(changes)))


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_the_exempt_files_may_read_environment_and_clock(plant):
    use = "import os\nimport time\nos.environ['HOME']\ntime.time()\n"
    root = plant({"recsys/settings.py": use, "etl/__main__.py": use})
    shutil.copy(HOME / "pyproject.toml", root / "pyproject.toml")

    assert rules.banned_apis(root, root / "pyproject.toml") == []


def test_there_is_something_to_judge():
    """An empty tree keeps every rule; ours is not empty."""
    assert {"recsys", "etl", "training", "serving"} <= rules.top_level_packages(HOME)
    assert rules.dag_ids(HOME)
    assert len(rules.dag_tasks(HOME)) > 10
    assert rules.metric_names(HOME)
    assert rules.endpoints(HOME)
    assert len(rules.tracked_files(HOME)) > 50
