"""The rules of the house as functions: a tree in, the list of its violations out.

Each function takes the root of a repository and returns one sentence a violation, so that the tests can show both that
our tree has none and that a planted fault is found.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 400
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "processor"}
SKIPPED_FOLDERS = {"__pycache__", "target", "logs", "dbt_packages", "node_modules"}

OUTSIDE_THE_CONTRACTS = {
    "tests": "may look into every room",
    "bench": "measures every room",
    "dags": "no package of ours: Airflow loads its files; judged by `dag_imports`",
    "feature_repo": "no package of ours: Feast loads its one file; judged by `foreign_python`",
}
DAG_MODULES = {"airflow", "pendulum", "recsys.artifacts", "recsys.columns"}
STATION_README_WORDS = ("reads", "writes", "run", "owner")

METRIC_TYPES = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
HTTP_VERBS = {"get", "post", "put", "delete", "patch", "add_api_route", "add_route", "api_route", "route"}

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:tmp|work|farm|root|home/\w+)/")
DOWNLOAD_ADDRESS = re.compile(r"https?://[^\s\"'<>)]*\.(?:whl|jar|tgz|tar\.gz|deb|rpm)\b")
REGISTRY_HOST = re.compile(r"--(?:extra-)?index-url\b(?!\")|\[\[index\]\]|\"resolved\": *\"http|registry *= *\"?http")
SQL_CLOCK = re.compile(r"\b(?:now\s*\(\s*\)|current_(?:date|timestamp|time)\b|clock_timestamp\s*\()", re.IGNORECASE)


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder, without hidden and generated ones, in order."""
    return [
        path
        for path in sorted(folder.rglob("*.py"))
        if not any(
            part.startswith(".") or part in SKIPPED_FOLDERS or part == "var" for part in path.relative_to(folder).parts
        )
    ]


def top_level_packages(root: Path) -> set[str]:
    """Return the folders of the repository that hold Python files at any depth."""
    return {path.relative_to(root).parts[0] for path in python_files(root) if path.parent != root}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield every module that a file imports, inside functions and by name too; `?` for a name computed at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "recsys" else (module,)
        elif isinstance(node, ast.Call) and _called_name(node) in {"import_module", "__import__"}:
            argument = node.args[0] if node.args else None
            yield str(argument.value) if isinstance(argument, ast.Constant) else "?"


def _called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


# R1, R2 ---------------------------------------------------------------------------------------------------------------


def import_contracts(root: Path) -> list[str]:
    """Run the import-linter contracts of `pyproject.toml`; return its report's lines when one is broken."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache", "--config", root / "pyproject.toml"], cwd=root, capture_output=True, text=True, check=False
    )
    report = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"\w", line)]
    return [] if done.returncode == 0 else report


# R3 -------------------------------------------------------------------------------------------------------------------


def dag_imports(root: Path) -> list[str]:
    """Find what DAG files may not import: anything but Airflow, the standard library, the names and each other."""
    files = python_files(root / "dags")
    own = {path.stem for path in files} | {"dags"}
    return [
        f"{path.relative_to(root)} imports {module}"
        for path in files
        for module in imported_modules(ast.parse(path.read_text()))
        if module not in DAG_MODULES
        and module.split(".")[0] not in own | {"airflow"}
        and (module == "?" or module.split(".")[0] not in sys.stdlib_module_names)
    ]


# R4 -------------------------------------------------------------------------------------------------------------------


def packages_outside_contracts(root: Path) -> list[str]:
    """Find top-level packages that no import contract names, and contracts that name no folder."""
    config = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in config["contracts"] if c["type"] == "layers")["layers"]
    layered = {name.strip() for layer in layers for name in layer.split("|")}
    roots, found = set(config["root_packages"]), top_level_packages(root) - set(OUTSIDE_THE_CONTRACTS)
    return (
        [f"{name}/ is under no import contract" for name in sorted(found - (roots & layered))]
        + [f"the contracts name {name}, which has no Python file" for name in sorted((roots | layered) - found)]
        + [f"{name}/ has no __init__.py" for name in sorted(found) if not (root / name / "__init__.py").is_file()]
    )


# R5 -------------------------------------------------------------------------------------------------------------------


def foreign_python(root: Path) -> list[str]:
    """Find Python files that would shadow dbt, or that Feast would import beside its one definitions file."""
    dbt = [f"{path.relative_to(root)}: dbt/ holds no Python" for path in python_files(root / "dbt")]
    definitions = [path.relative_to(root / "feature_repo").as_posix() for path in python_files(root / "feature_repo")]
    if definitions != ["features.py"]:
        dbt.append(f"feature_repo/ holds exactly features.py, found {definitions}")
    return dbt


# R6 -------------------------------------------------------------------------------------------------------------------


def banned_apis(root: Path, config: Path) -> list[str]:
    """Let Ruff find uses of the environment and of the clock outside the files that may read them."""
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [ruff, "check", "--no-cache", "--select", "TID251", "--output-format", "concise", "--config", config, "."],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()


def sql_clocks(root: Path) -> list[str]:
    """Find SQL files that read the database's clock: a model is a function of its data interval."""
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for folder in ("dbt", "recsys")
        for path in sorted((root / folder).rglob("*.sql"))
        if not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if SQL_CLOCK.search(line.split("--")[0])
    ]


# R10 ------------------------------------------------------------------------------------------------------------------


def vague_names(root: Path) -> list[str]:
    """Find modules and folders whose name says nothing."""
    return [
        f"{path.relative_to(root)}: a name that says nothing"
        for path in python_files(root)
        if VAGUE_NAMES.intersection({*path.relative_to(root).parts[:-1], path.stem})
    ]


def long_files(root: Path) -> list[str]:
    """Find Python files longer than a person reads in one go."""
    sizes = {path: len(path.read_text().splitlines()) for path in python_files(root)}
    return [f"{path.relative_to(root)}: {lines} lines" for path, lines in sizes.items() if lines > MAX_LINES]


# R11 ------------------------------------------------------------------------------------------------------------------


def dag_ids(root: Path) -> set[str]:
    """Return the ids of the DAGs: the `DAG_…` names of `recsys/artifacts.py`, and literal ones in dags/."""
    names = {
        name: value for name, value in constants(root / "recsys" / "artifacts.py").items() if name.startswith("DAG_")
    }
    found = set(names.values())
    for path in python_files(root / "dags"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _called_name(node) in {"DAG", "dag"}:
                values = [keyword.value for keyword in node.keywords if keyword.arg == "dag_id"] + node.args[:1]
                found |= {value.value for value in values if isinstance(value, ast.Constant)}
    return found


def metric_names(root: Path) -> set[str]:
    """Return the names of the Prometheus metrics that the stations define, as they are exposed."""
    return {
        f"{node.args[0].value.removesuffix('_total')}_total" if name == "Counter" else node.args[0].value
        for path in _station_files(root)
        if "prometheus_client" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and (name := _called_name(node)) in METRIC_TYPES
        if node.args and isinstance(node.args[0], ast.Constant)
    }


def endpoints(root: Path) -> set[str]:
    """Return the paths of the HTTP endpoints that serving declares, without the converters of their parameters."""
    return {
        re.sub(r":\w+}", "}", node.args[0].value)
        for path in python_files(root / "serving")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HTTP_VERBS
        if node.args and isinstance(node.args[0], ast.Constant) and str(node.args[0].value).startswith("/")
    }


def undocumented(names: set[str], document: Path) -> list[str]:
    """Find names that a document does not show as code."""
    text = document.read_text() if document.is_file() else ""
    return [f"{name} does not appear in {document.name}" for name in sorted(names) if not _shown(name, text)]


def _shown(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w/]){re.escape(name)}(?![\w])", text) is not None


def constants(module: Path) -> dict[str, str]:
    """Return the string constants that a module assigns at its top."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def _station_files(root: Path) -> list[Path]:
    names = top_level_packages(root) - set(OUTSIDE_THE_CONTRACTS)
    return [path for name in sorted(names) for path in python_files(root / name)]


# The rest of the house ------------------------------------------------------------------------------------------------


def tracked_files(root: Path) -> list[Path]:
    """Return the files that git has or would take, without the binary ones."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    files = [root / name for name in sorted(set(listing.stdout.split("\0"))) if name]
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def machine_details(root: Path) -> list[str]:
    """Find paths of one machine, addresses of packages, and registries' hosts in files that git has."""
    return [
        f"{path.relative_to(root)}:{number}: {what}: {line.strip()[:100]}"
        for path in tracked_files(root)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        for what, pattern in (
            ("machine path", MACHINE_PATH),
            ("download address", DOWNLOAD_ADDRESS),
            ("registry", REGISTRY_HOST),
        )
        if pattern.search(line)
    ]


def direct_dependencies(root: Path) -> set[str]:
    """Return the normalised names in `requirements/*.in`, without the overrides."""
    found = set()
    for path in sorted((root / "requirements").glob("*.in")):
        for line in path.read_text().splitlines():
            if match := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)", line):
                found.add(re.sub(r"[-_.]+", "-", match[1]).lower())
    return found


def unexplained_dependencies(root: Path) -> list[str]:
    """Find direct dependencies without a reason in the decisions, and reasons for what is no dependency."""
    document = root / "docs" / "decisions" / "0008-dependencies.md"
    text = document.read_text() if document.is_file() else ""
    explained = set(re.findall(r"^\| `([a-z0-9-]+)` \| \S", text, re.MULTILINE))
    wanted = direct_dependencies(root)
    return [f"{name} has no reason in {document.name}" for name in sorted(wanted - explained)] + [
        f"{document.name} explains {name}, which nothing requires" for name in sorted(explained - wanted)
    ]


def missing_targets(root: Path) -> list[str]:
    """Find `make` targets that the README promises and the Makefile lacks."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*)\s*:(?!=)", (root / "Makefile").read_text(), re.MULTILINE))
    promised = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", _code_of((root / "README.md").read_text())))
    if not promised:
        return ["README.md promises no make target"]
    return [f"README.md promises `make {name}`, the Makefile has none" for name in sorted(promised - targets)]


def _code_of(markdown: str) -> str:
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", markdown, re.DOTALL))


def incomplete_readmes(root: Path, rooms: set[str]) -> list[str]:
    """Find rooms whose README does not say what it reads and writes, how to run it and who owns it."""
    faults = []
    for room in sorted(rooms):
        path = root / room / "README.md"
        text = path.read_text().lower() if path.is_file() else ""
        faults += [
            f"{room}/README.md does not say `{word}`"
            for word in STATION_README_WORDS
            if not re.search(rf"\b{word}\b\W*[:|*]|^#+ {word}\b", text, re.MULTILINE)
        ]
    return faults


def tests_without_assertion(root: Path) -> list[str]:
    """Find test functions that nothing can fail: no assert, no `raises`, and no call of a function that checks."""
    faults = []
    for path in python_files(root / "tests"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                calls = {_called_name(call) for call in ast.walk(node) if isinstance(call, ast.Call)}
                checks = any(re.match(r"raises$|assert|check|expect|verify", name) for name in calls)
                if not checks and not any(isinstance(inner, ast.Assert) for inner in ast.walk(node)):
                    faults.append(f"{path.relative_to(root)}: {node.name} asserts nothing")
    return faults


def dag_tasks(root: Path) -> set[str]:
    """Return the ids of the DAGs' tasks: literal `task_id`s, first arguments of the task makers, `@task` functions."""
    found = set()
    for path in python_files(root / "dags"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                values = [keyword.value for keyword in node.keywords if keyword.arg == "task_id"]
                values += node.args[:1] if _called_name(node) in {"station", "foreign"} else []
                found |= {value.value for value in values if isinstance(value, ast.Constant)}
            elif isinstance(node, ast.FunctionDef):
                said = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
                found |= {node.name} if any(name.split(".")[0] == "task" for name in said) else set()
    return found


def runbook_gaps(root: Path, services: set[str]) -> list[str]:
    """Find tasks and services without a page in docs/runbooks/, and pages of what is gone."""
    wanted = dag_tasks(root) | {f"{name}_down" for name in services} | {"README"}
    pages = {path.stem for path in (root / "docs" / "runbooks").glob("*.md")}
    return [f"docs/runbooks/{name}.md is missing" for name in sorted(wanted - pages)] + [
        f"docs/runbooks/{name}.md is about nothing that exists" for name in sorted(pages - wanted)
    ]
