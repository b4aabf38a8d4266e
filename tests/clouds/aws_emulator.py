"""SageMaker over HTTP on this machine: moto's server, what it lacks, and the real serving processes behind it.

Added to moto 5.2: `UpdateEndpoint` and `DeleteModelPackageGroup`; empty blocks and nulls are left out of answers, as
AWS does and its SDK expects; an invocation goes to the serving process of a variant, drawn by weight in turn; faults
on demand.
"""

import json
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable

from moto.sagemaker.models import sagemaker_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

ACCOUNT, REGION = "123456789012", "us-east-1"
INVOCATION = re.compile(r"^/endpoints/(?P<name>[^/]+)/invocations$")


class Emulator:
    """The WSGI application, served on a free loopback port from a thread."""

    def __init__(self, serving_urls: dict[str, str]):
        """serving_urls: release version → address of the serving process that has it."""
        self.serving_urls, self.calls, self.invoked = serving_urls, Counter(), 0
        self.faults: list[tuple[str, int, str]] = []
        """(operation, status, code): each is given once, at the next call of this operation."""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def backend(self):
        return sagemaker_backends[ACCOUNT][REGION]

    def close(self) -> None:
        self._server.shutdown()

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        invocation = INVOCATION.match(environ["PATH_INFO"])
        operation = "InvokeEndpoint" if invocation else operation
        self.calls[operation] += 1
        for fault in self.faults:
            if fault[0] == operation:
                self.faults.remove(fault)
                return answer(start_response, fault[1], {"__type": fault[2], "message": "of this test"})
        if invocation:
            return self._invoke(environ, start_response, invocation["name"])
        if operation == "UpdateEndpoint":
            return self._update_endpoint(environ, start_response)
        if operation == "DeleteModelPackageGroup":
            self.backend.model_package_groups.pop(json.loads(body_of(environ))["ModelPackageGroupName"], None)
            return answer(start_response, 200, {})
        return self._pruned(environ, start_response)

    def _update_endpoint(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        asked = json.loads(body_of(environ))
        endpoint = self.backend.endpoints.get(asked["EndpointName"])
        config = self.backend.endpoint_configs.get(asked["EndpointConfigName"])
        if endpoint is None or config is None:
            missing = "endpoint" if endpoint is None else "endpoint configuration"
            return answer(
                start_response, 400, {"__type": "ValidationException", "message": f"Could not find {missing}"}
            )
        endpoint.endpoint_config_name = asked["EndpointConfigName"]
        endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
        return answer(start_response, 200, {"EndpointArn": endpoint.arn})

    def _invoke(self, environ: dict, start_response: Callable, name: str) -> Iterable[bytes]:
        self.invoked += 1
        endpoint = self.backend.endpoints[name]
        weights = {v["VariantName"]: v.get("DesiredWeight", 0) for v in endpoint.production_variants}
        place = self.invoked * 37 % 100 * sum(weights.values()) / 100
        for name, weight in weights.items():
            place -= weight
            if place < 0:
                variant = name
                break
        config = self.backend.endpoint_configs[endpoint.endpoint_config_name]
        model = next(v["ModelName"] for v in config.production_variants if v["VariantName"] == variant)
        version = self.backend._models[model].primary_container["Environment"]["RECSYS_RELEASE"]
        request = urllib.request.Request(
            f"{self.serving_urls[version]}/invocations", body_of(environ), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answered:
                content = answered.read()
        except urllib.error.HTTPError as error:  # SageMaker wraps what the container says
            message = error.read().decode()
            return answer(start_response, 424, {"__type": "ModelError", "message": message})
        start_response("200 OK", [("Content-Type", "application/json"), ("x-Amzn-Invoked-Production-Variant", variant)])
        return [content]

    def _pruned(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        told: list = []
        content = b"".join(self._moto(environ, lambda status, headers, *rest: told.extend([status, headers])))
        status, headers = told
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("SageMaker.") and content:
            content = json.dumps(without_empty(json.loads(content))).encode()
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, headers)
        return [content]


def body_of(environ: dict) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def answer(start_response: Callable, status: int, document: dict) -> list[bytes]:
    start_response(f"{status} Emulated", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps(document).encode()]


def without_empty(value):
    """Return a JSON value without the nulls and the empty objects in its objects; lists stay."""
    if isinstance(value, dict):
        kept = {name: without_empty(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner is not None and inner != {}}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value
