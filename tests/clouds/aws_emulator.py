"""SageMaker over HTTP on this machine: moto's server, what it lacks, and the real serving processes behind it.

Added to moto 5.2: `UpdateEndpoint` and `DeleteModelPackageGroup`; empty blocks and nulls are left out of answers, as
AWS does and its SDK expects; an invocation goes to the serving process of a variant, drawn by weight in turn; a batch
transform really runs, on moto's S3; a new variant can turn out not to be healthy; faults on demand.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from moto.cloudwatch.models import cloudwatch_backends
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.server import DomainDispatcherApplication, create_backend_app

from tests.clouds.emulation import MAX_BODY_BYTES, Call, Emulator, Refused, body_of, json_answer

ACCOUNT, REGION = "123456789012", "us-east-1"
INVOCATION = re.compile(r"^/endpoints/(?P<name>[^/]+)/invocations$")
READS = ("Describe", "List", "Get", "InvokeEndpoint")
REASONS = {"unhealthy": "The container did not pass the ping health check", "no quota": "ResourceLimitExceeded",
           "no image": "ClientError: The image does not exist or cannot be pulled"}  # fmt: skip


def refused(status: int, code: str, message: str = "of this test") -> Refused:
    return Refused(status, {"__type": code, "message": message})


class AwsEmulator(Emulator):
    """One account and region."""

    def __init__(self, serving_urls: Mapping[str, str]):
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._states: dict[str, tuple[str, str]] = {}
        """endpoint → (status, reason) of one that is not in service."""
        super().__init__(serving_urls)

    @property
    def backend(self):
        return sagemaker_backends[ACCOUNT][REGION]

    def billable(self) -> dict[str, int]:
        return {
            variant["VariantName"]: variant.get("CurrentInstanceCount") or 1
            for endpoint in self.backend.endpoints.values()
            for variant in endpoint.production_variants
        }

    def call_of(self, environ: dict) -> Call:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        operation = "InvokeEndpoint" if INVOCATION.match(environ["PATH_INFO"]) else operation
        return Call(operation, bool(operation) and not operation.startswith(READS))

    def refusal(self, kind: str) -> Refused:
        return {
            "throttled": refused(429, "ThrottlingException"),
            "broken": refused(500, "InternalFailure"),
            "unavailable": refused(503, "ServiceUnavailable"),
            "expired": refused(403, "ExpiredTokenException"),
            "forbidden": refused(403, "AccessDeniedException"),
            "quota": refused(400, "ResourceLimitExceeded"),
        }[kind]

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        operation = self.call_of(environ).operation
        if operation == "InvokeEndpoint":
            return self._invoke(environ, start_response)
        if operation == "UpdateEndpoint":
            return self._update_endpoint(environ, start_response)
        if operation == "DeleteModelPackageGroup":
            self.backend.model_package_groups.pop(json.loads(body_of(environ))["ModelPackageGroupName"], None)
            return json_answer(start_response, 200, {})
        return self._pruned(environ, start_response, operation)

    def _update_endpoint(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        """As SageMaker does it: what fails goes back to the former configuration by itself, with a reason."""
        asked = json.loads(body_of(environ))
        name = asked["EndpointName"]
        endpoint = self.backend.endpoints.get(name)
        config = self.backend.endpoint_configs.get(asked["EndpointConfigName"])
        if endpoint is None or config is None:
            missing = "endpoint" if endpoint is None else "endpoint configuration"
            raise refused(400, "ValidationException", f"Could not find {missing}")
        newcomers = len(config.production_variants) > len(endpoint.production_variants)
        if newcomers and self.outcome in REASONS:
            self._states[name] = ("InService", REASONS[self.outcome])
        elif newcomers and self.outcome == "stuck":
            self._states[name] = ("Updating", "")
        else:
            self._states.pop(name, None)
            endpoint.endpoint_config_name = asked["EndpointConfigName"]
            endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
        return json_answer(start_response, 200, {"EndpointArn": endpoint.arn})

    def _invoke(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        name, body = INVOCATION.match(environ["PATH_INFO"])["name"], body_of(environ)
        if len(body) > MAX_BODY_BYTES:
            raise refused(413, "ValidationError", "The request is larger than the payload limit")
        if name not in self.backend.endpoints:
            raise refused(400, "ValidationError", f"Endpoint {name} could not find")
        endpoint = self.backend.endpoints[name]
        variant = self.drawn({v["VariantName"]: v.get("DesiredWeight", 0) for v in endpoint.production_variants})
        self._count(name, variant)
        config = self.backend.endpoint_configs[endpoint.endpoint_config_name]
        model = next(v["ModelName"] for v in config.production_variants if v["VariantName"] == variant)
        status, content = self.ask(self._version_of(model), "/invocations", body)
        if status >= 400:  # SageMaker wraps what the container says
            raise refused(424, "ModelError", content.decode())
        start_response("200 OK", [("Content-Type", "application/json"), ("x-Amzn-Invoked-Production-Variant", variant)])
        return [content]

    def _count(self, endpoint: str, variant: str) -> None:
        """Write CloudWatch's metric of invocations, as SageMaker does."""
        dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
        datum = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 1.0, "Unit": "None",
                 "Timestamp": datetime.fromtimestamp(self.answered[-1], UTC).replace(tzinfo=None)}  # fmt: skip
        cloudwatch_backends[ACCOUNT][REGION].put_metric_data("AWS/SageMaker", [datum])

    def let_pass(self, seconds: float) -> None:
        super().let_pass(seconds)
        for datum in cloudwatch_backends[ACCOUNT][REGION].metric_data:
            datum.timestamp -= timedelta(seconds=seconds)

    def _version_of(self, model: str) -> str:
        return self.backend._models[model].primary_container["Environment"]["RECSYS_RELEASE"]

    def _transform(self, name: str) -> None:
        """Run a batch transform at once: each line of the objects is a request; `.out` is added to their names."""
        job = self.backend.transform_jobs[name]
        source = job.transform_input["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://").partition("/")
        target = job.transform_output["S3OutputPath"].removeprefix("s3://").partition("/")
        store = s3_backends[ACCOUNT]["aws"]
        if source[0] not in store.buckets:
            return
        for key in [key for key in store.buckets[source[0]].keys if key.startswith(source[2])]:
            lines = store.get_object(source[0], key).value.splitlines()
            answers = [self.ask(self._version_of(job.model_name), "/invocations", line)[1] for line in lines]
            store.put_object(target[0], f"{target[2].rstrip('/')}/{key.rpartition('/')[2]}.out", b"\n".join(answers))

    def _pruned(self, environ: dict, start_response: Callable, operation: str) -> Iterable[bytes]:
        told: list = []
        body = body_of(environ)
        if operation == "AddTags":  # moto keeps the former value beside the new one; AWS replaces it
            keys = {tag["Key"] for tag in json.loads(body)["Tags"]}
            self.backend.delete_tags(json.loads(body)["ResourceArn"], keys)
        environ["wsgi.input"] = _Again(body)
        content = b"".join(self._moto(environ, lambda status, headers, *rest: told.extend([status, headers])))
        status, headers = told
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("SageMaker.") and content:
            document = without_empty(json.loads(content))
            if operation == "DescribeEndpoint" and status.startswith("200"):
                document = self._described(document)
            content = json.dumps(document).encode()
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        if status.startswith("200"):
            self._after(operation, json.loads(body or b"{}") if operation else {})
        start_response(status, headers)
        return [content]

    def _after(self, operation: str, asked: dict) -> None:
        if operation == "CreateEndpoint" and self.outcome in (*REASONS, "stuck"):
            state = "Creating" if self.outcome == "stuck" else "Failed"
            self._states[asked["EndpointName"]] = (state, REASONS.get(self.outcome, ""))
        if operation == "DeleteEndpoint":
            self._states.pop(asked["EndpointName"], None)
        if operation == "CreateTransformJob":
            self._transform(asked["TransformJobName"])

    def _described(self, document: dict) -> dict:
        state, reason = self._states.get(document["EndpointName"], ("InService", ""))
        return {**document, "EndpointStatus": state, **({"FailureReason": reason} if reason else {})}


class _Again:
    """A request's body, to be read once more."""

    def __init__(self, body: bytes):
        self._body = body

    def read(self, size: int = -1) -> bytes:
        size = len(self._body) if size is None or size < 0 else size
        given, self._body = self._body[:size], self._body[size:]
        return given

    def readline(self, size: int = -1) -> bytes:
        end = self._body.find(b"\n") + 1 or len(self._body)
        return self.read(end)


def without_empty(value):
    """Return a JSON value without the nulls and the empty objects in its objects; lists stay."""
    if isinstance(value, dict):
        kept = {name: without_empty(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner is not None and inner != {}}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value
