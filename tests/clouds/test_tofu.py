"""The clouds' foundations as code: complete, by least privilege, without a secret; and each rule can be broken."""

import copy
import json
import subprocess

import pytest

from infra import tofu_check
from infra.tofu_check import complaints, read, secrets_in
from recsys.settings import HOME

FILES = read()
NEEDED = {
    "aws": {"aws_vpc", "aws_subnet", "aws_security_group", "aws_ecr_repository", "aws_s3_bucket",
            "aws_s3_bucket_public_access_block", "aws_s3_bucket_versioning", "aws_iam_role",
            "aws_secretsmanager_secret", "aws_budgets_budget", "aws_emrserverless_application"},
    "gcp": {"google_compute_network", "google_compute_subnetwork", "google_artifact_registry_repository",
            "google_storage_bucket", "google_service_account", "google_secret_manager_secret", "google_billing_budget",
            "google_dataproc_cluster", "google_container_cluster", "google_container_node_pool"},
    "azure": {"azurerm_virtual_network", "azurerm_subnet", "azurerm_container_registry", "azurerm_storage_account",
              "azurerm_user_assigned_identity", "azurerm_role_assignment", "azurerm_key_vault",
              "azurerm_consumption_budget_resource_group", "azurerm_machine_learning_compute_cluster"},
}  # fmt: skip
OPEN = {"actions": ["s3:GetObject"], "resources": ["*"]}


def test_each_cloud_has_its_file():
    assert sorted(FILES) == sorted(NEEDED)


@pytest.mark.parametrize("cloud", NEEDED)
def test_a_cloud_has_what_the_first_rollout_needs_and_nothing_is_wrong_with_it(cloud):
    assert NEEDED[cloud] <= set(FILES[cloud]["resource"])
    assert complaints(FILES[cloud]) == []


@pytest.mark.parametrize("cloud", NEEDED)
def test_somebody_is_told_before_the_budget_is_gone(cloud):
    text = json.dumps(FILES[cloud]["resource"])
    assert "${var.monthly_usd}" in text
    assert "${var.mail}" in text
    assert "forecasted" in text.lower()


def planted(cloud: str, plant) -> list[str]:
    document = copy.deepcopy(FILES[cloud])
    plant(document)
    return complaints(document)


def statements(document: dict) -> list:
    return document["data"]["aws_iam_policy_document"]["serving"]["statement"]


def member(kind: str, name: str, **values: str):
    """Return what plants these values into a resource."""
    return lambda document: document["resource"][kind][name].update(values)


def training(document: dict, kind: str) -> dict:
    """Return the cluster that trains."""
    return document["resource"][kind]["training"]


def instances(document: dict) -> dict:
    """Return what may be done with container instances."""
    return document["resource"]["azurerm_role_definition"]["instances"]["permissions"][0]


EGRESS = {"cidr_blocks": ["0.0.0.0/0"]}
FAULTS = [
    ("aws", lambda d: statements(d).append(OPEN), "s3:GetObject on everything"),
    ("aws", lambda d: statements(d)[0]["actions"].append("s3:*"), "a wildcard in the action s3:*"),
    ("aws", lambda d: statements(d)[0].update(principals=[{"type": "AWS", "identifiers": ["*"]}]), "anybody"),
    ("aws", lambda d: d["resource"].update(aws_secretsmanager_secret_version={}), "hold a secret's value"),
    ("aws", lambda d: d["resource"]["aws_vpc"].clear(), "aws_vpc.recsys.id leads nowhere"),
    ("aws", lambda d: d["variable"].update(more={"description": "x"}), "more is not used"),
    ("aws", lambda d: d["variable"]["mail"].pop("description"), "mail is not described"),
    ("aws", lambda d: d["provider"]["aws"].update(access_key="AKIA" + "A" * 16), "stands in it: AKIAAAAA…"),
    ("aws", lambda d: d["resource"]["aws_security_group"]["serving"]["egress"][0].update(EGRESS), "open to everybody"),
    ("gcp", member("google_project_iam_member", "rollout", role="roles/editor"), "more than anybody needs"),
    ("gcp", member("google_storage_bucket_iam_member", "serving", member="allUsers"), "more than anybody needs"),
    ("gcp", lambda d: d["resource"]["google_project_iam_custom_role"]["rollout"]["permissions"].append("a.*"), "a.*"),
    ("azure", lambda d: instances(d)["actions"].append("Microsoft.Network/*"), "a wildcard in Microsoft.Network/*"),
    ("azure", member("azurerm_role_assignment", "pull", role_definition_name="Owner"), "more than anybody needs"),
    ("azure", member("azurerm_storage_container", "batches", container_access_type="blob"), "open to everybody"),
    (
        "aws",
        lambda d: training(d, "aws_emrserverless_application")["auto_stop_configuration"].update(enabled=False),
        "is not ended when it is idle: auto_stop_configuration.enabled is False",
    ),
    (
        "gcp",
        lambda d: training(d, "google_dataproc_cluster")["cluster_config"].pop("lifecycle_config"),
        "idle_delete_ttl is None",
    ),
    (
        "gcp",
        lambda d: d["resource"]["google_container_node_pool"]["serving"]["autoscaling"].update(total_min_node_count=1),
        "total_min_node_count is 1",
    ),
    (
        "azure",
        lambda d: training(d, "azurerm_machine_learning_compute_cluster")["scale_settings"].update(min_node_count=1),
        "min_node_count is 1",
    ),
    ("azure", lambda d: d.update(resources={}), "unknown block resources"),
]


@pytest.mark.parametrize(("cloud", "plant", "said"), FAULTS, ids=[said for *_, said in FAULTS])
def test_a_planted_fault_is_found(cloud, plant, said):
    assert any(said in sentence for sentence in planted(cloud, plant))


def test_what_the_blueprints_say_of_themselves_is_what_the_roles_allow():
    """Names that begin with `recsys` are all that the rollout's role may touch on AWS."""
    resources = [each for one in FILES["aws"]["data"]["aws_iam_policy_document"]["rollout"]["statement"]
                 for each in one["resources"] if "sagemaker" in each]  # fmt: skip
    assert resources
    assert all(each.endswith("/recsys*") for each in resources)


@pytest.mark.parametrize(
    "text", ["AKIA" + "B" * 16, "-----BEGIN RSA " + "PRIVATE KEY-----", "AIza" + "c" * 35, "ghp_" + "d" * 36,
             "AccountKey=" + "e" * 44],
)  # fmt: skip
def test_a_secret_is_recognised_and_not_told(text):
    (found,) = secrets_in(f"x = '{text}'")
    assert len(found) == 9


def test_no_file_of_the_repository_holds_a_secret():
    listed = subprocess.run(["git", "ls-files"], cwd=HOME, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    files = [HOME / name for name in listed if name and (HOME / name).is_file() and not (HOME / name).is_symlink()]
    assert len(files) > 300
    found = {str(file.relative_to(HOME)): secrets_in(file.read_text(errors="replace")) for file in files}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}


def test_the_image_takes_no_secret_with_it():
    ignored = (HOME / "serving" / "Dockerfile.dockerignore").read_text()
    recipe = (HOME / "serving" / "Dockerfile").read_text()
    assert ignored.startswith("*") or "platform.env" in ignored or "var" in ignored
    assert not [line for line in recipe.splitlines() if line.startswith(("ENV", "ARG")) and "PASSWORD" in line]
    assert "COPY . " not in recipe


def test_it_says_so_by_its_exit_code(tmp_path, monkeypatch, capsys):
    assert tofu_check.main() == 0
    folder = tmp_path / "aws"
    folder.mkdir()
    (folder / "main.tf.json").write_text(json.dumps({"resources": {}}))
    monkeypatch.setattr(tofu_check, "read", lambda: read(tmp_path))
    assert tofu_check.main() == 1
    assert "unknown block" in capsys.readouterr().out
