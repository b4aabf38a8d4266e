"""Judges infra/tofu without network, provider or account: `python -m infra.tofu_check`.

What is checked: each file is OpenTofu's JSON syntax with known blocks; every reference leads to something declared and
every variable is used and described; clusters end when they are idle; nobody gets a wildcard or an owner's role;
nothing is public; no secret is in it.
What is not: whether a provider knows each argument. For that run `tofu init && tofu validate` where it is reached.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recsys.settings import HOME

FOLDER = HOME / "infra" / "tofu"
BLOCKS = {"terraform", "provider", "variable", "resource", "data", "output", "locals"}
REFERENCE = re.compile(r"\$\{(?P<path>[a-z_0-9]+(?:\.[A-Za-z_0-9]+)+)\}")
WITHOUT_RESOURCE = {
    "ecr:GetAuthorizationToken", "sagemaker:ListModels", "sagemaker:ListEndpointConfigs", "sagemaker:ListEndpoints",
    "sagemaker:ListModelPackageGroups", "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies", "cloudwatch:DescribeAlarms", "cloudwatch:GetMetricStatistics",
}  # fmt: skip
"""Actions that AWS grants on everything or not at all (its "Service Authorization Reference"); they change nothing."""
TOO_MUCH = {"roles/owner", "roles/editor", "roles/viewer", "Owner", "Contributor", "User Access Administrator",
            "allUsers", "allAuthenticatedUsers", "AdministratorAccess", "PowerUserAccess"}  # fmt: skip
PUBLIC = {"0.0.0.0/0", "::/0", "blob", "container", "public-read", "public-read-write"}
SECRET_VALUES = (
    "aws_secretsmanager_secret_version",
    "google_secret_manager_secret_version",
    "azurerm_key_vault_secret",
)
"""Resources that hold a secret's value: it would stand in the state file as well."""
STOPS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "aws_emrserverless_application": ("auto_stop_configuration.enabled", lambda given: given is True),
    "aws_emr_cluster": ("auto_termination_policy.idle_timeout", bool),
    "google_dataproc_cluster": ("cluster_config.lifecycle_config.idle_delete_ttl", bool),
    "google_container_node_pool": ("autoscaling.total_min_node_count", lambda given: given == 0),
    "azurerm_machine_learning_compute_cluster": ("scale_settings.min_node_count", lambda given: given == 0),
    "azurerm_synapse_spark_pool": ("auto_pause.delay_in_minutes", bool),
}
"""Machines that are there for work that comes and goes: the argument that ends them when it has gone."""
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|AIza[0-9A-Za-z_-]{35}|gh[pousr]_[0-9A-Za-z]{36}"
    r"|xox[baprs]-[0-9A-Za-z-]{10,}|\"private_key_id\"\s*:\s*\"[0-9a-f]{40}|AccountKey=[0-9A-Za-z+/]{40,}"
    r"|eyJ[0-9A-Za-z_-]{20,}\.eyJ[0-9A-Za-z_-]{20,}\."
)
"""Keys of the three clouds, of GitHub and Slack, private keys, signed tokens."""


def secrets_in(text: str) -> list[str]:
    """Return what looks like a secret, shortened so that it does not stand in a log."""
    return [f"{found[:8]}…" for found in SECRETS.findall(text)]


def complaints(document: dict[str, Any]) -> list[str]:
    """Return a sentence for each fault of one cloud's file, none when it is right."""
    found = [f"unknown block {name}" for name in sorted(set(document) - BLOCKS)]
    found += _of_references(document)
    for text in _strings(document):
        found += [f"{text} is more than anybody needs"] * (text in TOO_MUCH)
        found += [f"{text} is open to everybody"] * (text in PUBLIC)
        found += [f"a secret stands in it: {secret}" for secret in secrets_in(text)]
    found += [f"{kind} would hold a secret's value" for kind in SECRET_VALUES if kind in document.get("resource", {})]
    found += _of_idle(document.get("resource", {}))
    for name, policy in document.get("data", {}).get("aws_iam_policy_document", {}).items():
        for statement in policy["statement"]:
            found += _of_statement(name, statement)
    for name, role in document.get("resource", {}).get("google_project_iam_custom_role", {}).items():
        found += [f"{name}: a wildcard in {permission}" for permission in role["permissions"] if "*" in permission]
    for name, role in document.get("resource", {}).get("azurerm_role_definition", {}).items():
        actions = [action for permission in role["permissions"] for action in permission["actions"]]
        found += [f"{name}: a wildcard in {action}" for action in actions if "*" in action]
    return found


def _of_idle(resources: dict[str, Any]) -> Iterator[str]:
    """Yield what would stand there, and be paid for, when nobody uses it."""
    for kind, (argument, stops) in STOPS.items():
        for name, given in resources.get(kind, {}).items():
            value: Any = given
            for part in argument.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not stops(value):
                yield f"{kind}.{name} is not ended when it is idle: {argument} is {value}"


def _of_references(document: dict[str, Any]) -> Iterator[str]:
    declared = set(_declared(document))
    used = {match["path"] for text in _strings(document) for match in REFERENCE.finditer(text)}
    for path in sorted(used):
        if not any(path == name or path.startswith(f"{name}.") for name in declared):
            yield f"{path} leads nowhere"
    for name, variable in document.get("variable", {}).items():
        if f"var.{name}" not in used:
            yield f"the variable {name} is not used"
        if not variable.get("description"):
            yield f"the variable {name} is not described"


def _of_statement(name: str, statement: dict[str, Any]) -> Iterator[str]:
    for action in statement["actions"]:
        if "*" in action:
            yield f"{name}: a wildcard in the action {action}"
    if "*" in statement.get("resources", ()):
        for action in sorted(set(statement["actions"]) - WITHOUT_RESOURCE):
            yield f"{name}: {action} on everything"
    for principal in statement.get("principals", ()):
        if "*" in principal["identifiers"]:
            yield f"{name}: anybody may take this role"


def _declared(document: dict[str, Any]) -> Iterator[str]:
    """Yield what a reference may begin with."""
    yield from (f"var.{name}" for name in document.get("variable", {}))
    yield from (f"local.{name}" for name in document.get("locals", {}))
    for kind, resources in document.get("resource", {}).items():
        yield from (f"{kind}.{name}" for name in resources)
    for kind, sources in document.get("data", {}).items():
        yield from (f"data.{kind}.{name}" for name in sources)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return cloud → its file."""
    return {path.parent.name: json.loads(path.read_bytes()) for path in sorted(folder.glob("*/main.tf.json"))}


def main() -> int:
    said = [f"{cloud}: {sentence}" for cloud, document in read().items() for sentence in complaints(document)]
    print("\n".join(said) or "infra/tofu is right as far as can be seen without a provider")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
