"""All emulated clouds in one process, for programs that come from outside, as Airflow's tasks do.

    .venv/cloud/bin/python -m tests.clouds.stand FOLDER

Prints one line of JSON (`environment` for the SDKs, `clouds` as RECSYS_CLOUDS wants it, `serving`), then for each line
of its input what the accounts pay for now. A line `azure unhealthy` says before what becomes of the next deployments,
`azure hours 72` that so much time has passed there. The end of its input ends it.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from infra.local.service import poll
from recsys.settings import HOME
from tests.clouds.aci_emulator import AciEmulator
from tests.clouds.arm import SUBSCRIPTION
from tests.clouds.aws_emulator import ACCOUNT, REGION, AwsEmulator
from tests.clouds.azure_emulator import AzureEmulator
from tests.clouds.certificate import self_signed
from tests.clouds.emulation import json_answer
from tests.clouds.gcp_emulator import GcpEmulator
from tests.clouds.k8s_emulator import K8sEmulator
from tests.clouds.processes import WORLD, answers_ping, container_environment
from tests.ports import free_port

IDENTITY = "/identity/token"
PYTHON = {name: HOME / ".venv" / name / "bin" / "python" for name in ("platform", "serving")}


class SignedIn(AzureEmulator):
    """Azure, with the door at which a managed identity gets its token."""

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if environ["PATH_INFO"] != IDENTITY:
            return super().answer(environ, start_response)
        told = {"access_token": "rehearsal", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer",
                "resource": "https://management.azure.com/"}  # fmt: skip
        return json_answer(start_response, 200, told)


def serve(bundles: Path) -> tuple[dict[str, str], list[subprocess.Popen]]:
    """Make the bundles and start a serving process for each; return their addresses by version."""
    subprocess.run([PYTHON["platform"], "-c", WORLD, str(bundles)], cwd=HOME, check=True)
    urls, processes = {}, []
    for version in ("1", "2"):
        urls[version] = f"http://127.0.0.1:{free_port()}"
        environment = container_environment(bundles / version, urls[version], bundles)
        with (bundles / f"{version}.log").open("wb") as log:
            command = [PYTHON["serving"], "-m", "serving", "serve"]
            processes.append(subprocess.Popen(command, cwd=HOME, env=environment, stdout=log, stderr=log))
    for version, url in urls.items():
        poll(partial(answers_ping, url, bundles / f"{version}.log"), 120)
    return urls, processes


def main() -> None:
    folder = Path(sys.argv[1])
    for name in ("bundles", "buckets", "datastore", "share", "tls"):
        (folder / name).mkdir()
    urls, processes = serve(folder / "bundles")
    certificate = self_signed(folder / "tls")
    aws, gcp, k8s = AwsEmulator(urls), GcpEmulator(urls, folder / "buckets"), K8sEmulator(urls)
    azure = SignedIn(urls, certificate, folder / "datastore")
    aci = AciEmulator(urls, certificate, folder / "share")
    environment = {
        "AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": aws.url, "SAGEMAKER_TELEMETRY_OPT_OUT": "true",
        "REQUESTS_CA_BUNDLE": certificate[0], "AZUREML_DEV_URL_MFE": azure.url,
        "IDENTITY_ENDPOINT": azure.url + IDENTITY, "IDENTITY_HEADER": "rehearsal",
    }  # fmt: skip
    clouds: dict[str, Any] = {
        "aws": {"role_arn": f"arn:aws:iam::{ACCOUNT}:role/recsys-serving", "registry": "registry.example"},
        "gcp": {"project": "recsys-rehearsal", "registry": "registry.example", "api_endpoint": gcp.url,
                "service_account": "serving@recsys-rehearsal.iam.gserviceaccount.com"},
        "azure": {"subscription": SUBSCRIPTION, "resource_group": "rehearsal", "workspace": "recsys",
                  "registry": "registry.example", "management": azure.url, "poll_seconds": 0.02},
        "aci": {"subscription": SUBSCRIPTION, "resource_group": "rehearsal", "registry": "registry.example",
                "identity": f"/subscriptions/{SUBSCRIPTION}/userAssignedIdentities/recsys", "url": aci.url,
                "management": aci.url, "poll_seconds": 0.1},
        "k8s": {"server": k8s.url, "url": k8s.url, "registry": "registry.example"},
        "local": {"bundles": f"{folder}/bundles/{{version}}", "state": f"{folder}/state"},
    }  # fmt: skip
    print(json.dumps({"environment": environment, "clouds": clouds, "serving": urls}), flush=True)
    emulators = {"aws": aws, "gcp": gcp, "azure": azure, "aci": aci, "k8s": k8s}
    for line in sys.stdin:
        match line.split():
            case [name, "hours", number]:
                emulators[name].let_pass(3600 * float(number))
            case [name, outcome]:
                emulators[name].outcome = outcome
        print(json.dumps({name: each.billable() for name, each in emulators.items()}), flush=True)
    for process in processes:
        process.terminate()
    assert {process.wait(20) for process in processes} <= {0, -signal.SIGTERM}


if __name__ == "__main__":
    main()
