"""What things cost standing there: list prices, dated, on demand, without discounts, free tiers, taxes or traffic.

`LIST`: the vendor's published list price on `READ`, as the maintainers know it; the project has no way to the vendors'
pages while it is built, so look it up again before money depends on it. `ESTIMATE`: put together from others, said how.
Sources: "Amazon SageMaker AI pricing" (us-east-1), "Amazon EC2 on-demand pricing", "Amazon EKS pricing", "Amazon ECR
pricing"; "Google Compute Engine VM instance pricing", "Vertex AI pricing", "Google Kubernetes Engine pricing"
(us-central1); "Azure Linux Virtual Machines pricing", "Azure Machine Learning pricing", "Azure Container Registry
pricing", "Azure Container Instances pricing" (East US).
"""

from datetime import date
from typing import Literal, NamedTuple

READ = date(2025, 1, 31)
HOURS = 730
"""Of a month, as the vendors' own calculators count."""


class Price(NamedTuple):
    """One row of the table."""

    usd_per_hour: float
    cores: int
    memory_gib: float
    kind: Literal["LIST", "ESTIMATE"]
    note: str = ""

    def monthly(self, count: float = 1) -> float:
        """Return USD a month for so many of it."""
        return round(self.usd_per_hour * HOURS * count, 2)


PRICES: dict[str, Price] = {
    # SageMaker real-time hosting
    "aws ml.c5.large": Price(0.102, 2, 4, "LIST"),
    "aws ml.c5.xlarge": Price(0.204, 4, 8, "LIST"),
    "aws ml.m5.large": Price(0.115, 2, 8, "LIST"),
    "aws ml.m5.xlarge": Price(0.23, 4, 16, "LIST"),
    # EC2 behind EKS
    "aws c5.large": Price(0.085, 2, 4, "LIST"),
    "aws eks cluster": Price(0.10, 0, 0, "LIST"),
    # Vertex AI online prediction
    "gcp n1-standard-2": Price(0.1093, 2, 7.5, "ESTIMATE", "Compute Engine's 0.0950 list price and Vertex AI's 15 %"),
    "gcp e2-standard-2": Price(0.0771, 2, 8, "ESTIMATE", "Compute Engine's 0.06701 list price and Vertex AI's 15 %"),
    "gcp gke cluster": Price(0.10, 0, 0, "LIST"),
    # Azure ML managed online endpoints: the virtual machine's price, nothing on top
    "azure Standard_D2s_v3": Price(0.096, 2, 8, "LIST"),
    "azure Standard_F2s_v2": Price(0.0846, 2, 4, "LIST"),
    # Azure Container Instances: by the second; in East US 0.0405 a core and 0.00445 a GiB an hour
    "aci 1 core, 1 GiB": Price(0.04495, 1, 1, "ESTIMATE", "a core's and a GiB's list prices, added"),
    # A pod of this size on a cluster that is there anyway: its share of a c5.large
    "k8s 1 core, 1 GiB": Price(
        0.0425, 1, 1, "ESTIMATE", "half an EC2 c5.large: cores decide; the cluster is not counted"
    ),
    "local": Price(0.0, 0, 0, "LIST", "this machine"),
}


def price(target: str, shape: str) -> Price:
    """Return the row of a shape.

    Raises:
        KeyError: the table has none; the message names those it has.
    """
    row = f"{target} {shape}".strip()
    if row not in PRICES:
        known = ", ".join(name.split(" ", 1)[1] for name in PRICES if name.startswith(f"{target} "))
        raise KeyError(f"infra/prices.py has no price of {row!r}; it has {known or 'none of that target'}")
    return PRICES[row]
