"""Vertex AI's REST API on this machine, built on the SDK's own message types.

Requests are parsed into the messages and answers written from them, so an unknown or mistyped field is refused as
Google refuses it. Long-running operations are `google.longrunning.Operation`s with the result packed as `Any`; each
is done at its second look. A deployed model counts as billable from the moment in which it is asked for.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from google.cloud import aiplatform_v1 as v1
from google.cloud.aiplatform_v1.types import operation as operation_types
from google.longrunning.operations_pb2 import Operation
from google.protobuf import empty_pb2, json_format
from google.rpc import code_pb2

from tests.clouds.emulation import MAX_BODY_BYTES, Call, Emulator, Refused, body_of, json_answer

PARENT = "projects/recsys-rehearsal/locations/us-central1"
METRICS = "/v3/projects/recsys-rehearsal/timeSeries"
ROUTE = re.compile(r"^/(?:v1|ui)/(?P<parent>projects/[^/]+/locations/[^/]+)/(?P<collection>[A-Za-z]+)"
                   r"(?:/(?P<name>[^:]+))?(?::(?P<verb>\w+))?$")  # fmt: skip
"""The SDK asks for operations below /ui/, which its mixin names first."""
REQUIRED = {
    "Model": ("display_name", "container_spec.image_uri", "container_spec.predict_route",
              "container_spec.health_route", "container_spec.ports"),
    "Endpoint": ("display_name",),
    "DeployedModel": ("id", "model", "dedicated_resources.machine_spec.machine_type",
                      "dedicated_resources.min_replica_count"),
    "BatchPredictionJob": ("display_name", "model", "input_config.instances_format", "input_config.gcs_source.uris",
                           "output_config.predictions_format", "output_config.gcs_destination.output_uri_prefix",
                           "dedicated_resources.machine_spec.machine_type"),
}  # fmt: skip
STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
          409: "ALREADY_EXISTS", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip
FAILED = {
    "unhealthy": (code_pb2.FAILED_PRECONDITION, "Model server never became ready. Please validate the container."),
    "no image": (code_pb2.INVALID_ARGUMENT, "Image us-central1-docker.pkg.dev/recsys-rehearsal/recsys is not found."),
    "no quota": (code_pb2.RESOURCE_EXHAUSTED,
                 "The following quotas are exceeded: CustomModelServingCPUsPerProjectPerRegion"),
}  # fmt: skip
REPLICA_QUOTA = 60


class Running(NamedTuple):
    """An operation that is not done: looks until it is, and what then becomes so."""

    looks: int
    finish: Callable[[], Any]


def refused(status: int, message: str) -> Refused:
    return Refused(status, {"error": {"code": status, "message": message, "status": STATUS[status]}})


class GcpEmulator(Emulator):
    """One project and location. `buckets`: the folder that stands for gs://."""

    def __init__(self, serving_urls: Mapping[str, str], buckets: Path):
        self.models: dict[str, v1.Model] = {}
        self.endpoints: dict[str, v1.Endpoint] = {}
        self.jobs: dict[str, v1.BatchPredictionJob] = {}
        self.deploying: dict[str, v1.DeployedModel] = {}
        self._operations: dict[str, Running | Operation] = {}
        self._buckets = buckets
        super().__init__(serving_urls)

    def billable(self) -> dict[str, int]:
        deployed = [each for endpoint in self.endpoints.values() for each in endpoint.deployed_models]
        counted = [*deployed, *self.deploying.values()]
        return {each.display_name: each.dedicated_resources.min_replica_count for each in counted}

    def call_of(self, environ: dict) -> Call:
        found = ROUTE.match(environ["PATH_INFO"])
        method, what = environ["REQUEST_METHOD"], f"{found['collection']}.{found['verb'] or ''}" if found else "?"
        changes = method != "GET" and not what.endswith((".rawPredict", ".predict", ".cancel"))
        return Call(f"{method} {what.removesuffix('.')}", changes)

    def refusal(self, kind: str) -> Refused:
        return {
            "throttled": refused(429, "Quota exceeded for quota metric 'Requests' and limit 'per minute'"),
            "broken": refused(500, "Internal error encountered."),
            "unavailable": refused(503, "The service is currently unavailable."),
            "expired": refused(401, "Request had invalid authentication credentials."),
            "forbidden": refused(403, "Permission 'aiplatform.endpoints.deploy' denied"),
            "quota": refused(429, "The following quotas are exceeded: CustomModelServingCPUsPerProjectPerRegion"),
        }[kind]

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        found, method = ROUTE.match(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        if environ["PATH_INFO"] == METRICS:
            return json_answer(start_response, 200, self._counted(environ))
        if found is None:
            raise refused(404, f"no route {environ['PATH_INFO']}")
        if found["parent"] != PARENT:
            raise refused(403, f"Permission denied on resource project or location {found['parent']}")
        collection, name, verb = found["collection"], found["name"], found["verb"]
        body = body_of(environ)
        if len(body) > MAX_BODY_BYTES:
            raise refused(400, f"Request payload size exceeds the limit: {MAX_BODY_BYTES} bytes.")
        if verb == "rawPredict":
            return self._predict(name, body, start_response)
        handlers: dict[tuple[str, str, str | None], Callable[[], Any]] = {
            ("POST", "models", "upload"): lambda: self._upload(parsed(v1.UploadModelRequest, body)),
            ("GET", "models", None): lambda: self.model(name) if name else self._listed("models", self.models),
            ("DELETE", "models", None): lambda: self._delete_model(name),
            ("POST", "endpoints", None): lambda: self._create_endpoint(environ, parsed(v1.Endpoint, body)),
            ("GET", "endpoints", None): lambda: self.endpoint(name) if name else self._listed("endpoints",
                                                                                             self.endpoints),
            ("PATCH", "endpoints", None): lambda: self._update(name, environ, parsed(v1.Endpoint, body)),
            ("DELETE", "endpoints", None): lambda: self._delete_endpoint(name),
            ("POST", "endpoints", "deployModel"): lambda: self._deploy(name, parsed(v1.DeployModelRequest, body)),
            ("POST", "endpoints", "undeployModel"): lambda: self._undeploy(name, parsed(v1.UndeployModelRequest, body)),
            ("POST", "endpoints", "mutateDeployedModel"):
                lambda: self._mutate(name, parsed(v1.MutateDeployedModelRequest, body)),
            ("POST", "batchPredictionJobs", None): lambda: self._create_job(parsed(v1.BatchPredictionJob, body)),
            ("GET", "batchPredictionJobs", None): lambda: self._list_jobs(environ),
            ("GET", "operations", None): lambda: self._look(name),
            ("POST", "operations", "cancel"): lambda: self._cancel(name),
        }  # fmt: skip
        if (method, collection, verb) not in handlers:
            raise refused(404, f"no method {method} {collection}:{verb}")
        return json_answer(start_response, 200, document_of(handlers[method, collection, verb]()))

    def _counted(self, environ: dict) -> dict[str, Any]:
        """Answer Cloud Monitoring's `timeSeries.list` about the endpoint; a series without points is left out."""
        asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        missing = {"filter", "interval.startTime", "interval.endTime"} - set(asked)
        if missing or "prediction/online/response_count" not in asked["filter"]:
            raise refused(400, f"Request is missing {sorted(missing)} or names an unknown metric")
        ends = (datetime.fromisoformat(asked[f"interval.{end}Time"]).timestamp() for end in ("start", "end"))
        count = self.asked_between(*ends)
        return {"timeSeries": [{"points": [{"value": {"int64Value": str(count)}}]}]} if count else {}

    def model(self, name: str) -> v1.Model:
        if name.partition("@")[0] not in self.models:
            raise refused(404, f"The Model {name} does not exist.")
        return self.models[name.partition("@")[0]]

    def endpoint(self, name: str) -> v1.Endpoint:
        if name not in self.endpoints:
            raise refused(404, f"Endpoint {name} not found.")
        return self.endpoints[name]

    def _listed(self, collection: str, there: Mapping[str, Any]) -> dict[str, Any]:
        return {collection: [document_of(each) for each in there.values() if each.labels.get("recsys") == "serving"]}

    def _upload(self, asked: v1.UploadModelRequest) -> Operation:
        required(asked.model, "Model")
        if not re.fullmatch(r"[a-z0-9_-]{1,63}", asked.model_id):
            raise refused(400, f"Invalid model_id {asked.model_id!r}")
        if asked.model_id in self.models:
            raise refused(409, f"Model with ID {asked.model_id} already exists")
        model = v1.Model(asked.model)
        model.name = f"{PARENT}/models/{asked.model_id}"
        model.supported_deployment_resources_types = [v1.Model.DeploymentResourcesType.DEDICATED_RESOURCES]
        self.models[asked.model_id] = model
        return self._operation(lambda: v1.UploadModelResponse(model=model.name, model_version_id="1"))

    def _delete_model(self, name: str) -> Operation:
        resource = self.model(name).name
        if any(each.model == resource for endpoint in self.endpoints.values() for each in endpoint.deployed_models):
            raise refused(400, f"Model {name} is deployed; undeploy it first.")
        del self.models[name]
        return self._operation(empty_pb2.Empty)

    def _create_endpoint(self, environ: dict, endpoint: v1.Endpoint) -> Operation:
        required(endpoint, "Endpoint")
        name = re.search(r"endpointId=([^&]+)", environ["QUERY_STRING"])
        if name is None or not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name[1]):
            raise refused(400, "Invalid endpoint_id")
        if name[1] in self.endpoints:
            raise refused(409, f"Endpoint {name[1]} already exists")
        if endpoint.traffic_split or endpoint.deployed_models:
            raise refused(400, "traffic_split and deployed_models are set by deploying")
        endpoint.name = f"{PARENT}/endpoints/{name[1]}"
        self.endpoints[name[1]] = endpoint
        return self._operation(lambda: endpoint)

    def _update(self, name: str, environ: dict, given: v1.Endpoint) -> v1.Endpoint:
        endpoint = self.endpoint(name)
        mask = re.search(r"updateMask=([^&]+)", environ["QUERY_STRING"])
        if mask is None:
            raise refused(400, "Required field update_mask is not set")
        for field in mask[1].replace("%2C", ",").split(","):
            if field == "trafficSplit":
                check_split(dict(given.traffic_split), {each.id for each in endpoint.deployed_models})
                endpoint.traffic_split = dict(given.traffic_split)
            elif field == "description":
                endpoint.description = given.description
            else:
                raise refused(400, f"Field {field} cannot be updated")
        return endpoint

    def _delete_endpoint(self, name: str) -> Operation:
        if self.endpoint(name).deployed_models:
            raise refused(400, f"Endpoint {name} has deployed models; undeploy them first.")
        del self.endpoints[name]
        return self._operation(empty_pb2.Empty)

    def _deploy(self, name: str, asked: v1.DeployModelRequest) -> Operation:
        endpoint, deployed = self.endpoint(name), v1.DeployedModel(asked.deployed_model)
        required(deployed, "DeployedModel")
        if not re.fullmatch(r"[0-9]{1,10}", deployed.id):
            raise refused(400, f"Invalid id {deployed.id!r} of a deployed model")
        if deployed.id in self.deploying:
            raise refused(409, f"Deployment {deployed.id} is in progress")
        if deployed.id in {each.id for each in endpoint.deployed_models}:
            raise refused(409, f"DeployedModel {deployed.id} already exists")
        self.model(deployed.model.rpartition("/")[2])
        resources = deployed.dedicated_resources
        if resources.max_replica_count < resources.min_replica_count:
            raise refused(400, "max_replica_count is below min_replica_count")
        if sum(self.billable().values()) + resources.min_replica_count > REPLICA_QUOTA:
            raise self.refusal("quota")
        outcome, self.deploying[deployed.id] = self.outcome, deployed

        def finish() -> v1.DeployModelResponse:
            del self.deploying[deployed.id]
            if outcome in FAILED:
                raise Refused(*FAILED[outcome])
            endpoint.deployed_models.append(deployed)
            return v1.DeployModelResponse(deployed_model=deployed)

        return self._operation(finish, looks=10**9 if outcome == "stuck" else 2)

    def _undeploy(self, name: str, asked: v1.UndeployModelRequest) -> Operation:
        endpoint = self.endpoint(name)
        left = [each for each in endpoint.deployed_models if each.id != asked.deployed_model_id]
        if len(left) == len(endpoint.deployed_models):
            raise refused(404, f"{name}: DeployedModel {asked.deployed_model_id} not found")
        if endpoint.traffic_split.get(asked.deployed_model_id):
            raise refused(400, f"DeployedModel {asked.deployed_model_id} has traffic; change the split first")
        endpoint.deployed_models = left
        split = {deployed: share for deployed, share in endpoint.traffic_split.items() if share}
        endpoint.traffic_split = split
        return self._operation(lambda: v1.UndeployModelResponse())

    def _mutate(self, name: str, asked: v1.MutateDeployedModelRequest) -> Operation:
        found = [each for each in self.endpoint(name).deployed_models if each.id == asked.deployed_model.id]
        if not found:
            raise refused(404, f"{name}: DeployedModel {asked.deployed_model.id} not found")
        changed = ("min_replica_count", "max_replica_count", "autoscaling_metric_specs")
        if set(asked.update_mask.paths) - {f"dedicated_resources.{field}" for field in changed}:
            raise refused(400, f"Cannot update {list(asked.update_mask.paths)}")
        for path in asked.update_mask.paths:
            field = path.partition(".")[2]
            setattr(found[0].dedicated_resources, field, getattr(asked.deployed_model.dedicated_resources, field))
        return self._operation(lambda: v1.MutateDeployedModelResponse(deployed_model=found[0]))

    def _operation(self, finish: Callable[[], Any], looks: int = 2) -> Operation:
        name = f"{PARENT}/operations/{uuid.uuid4().int % 10**18}"
        self._operations[name.rpartition("/")[2]] = Running(looks, finish)
        return Operation(name=name)

    def _look(self, name: str) -> Operation:
        running = self._operations.get(name)
        if running is None:
            raise refused(404, f"Operation {name} not found")
        if isinstance(running, Operation):
            return running
        operation = Operation(name=f"{PARENT}/operations/{name}")
        if running.looks > 1:
            self._operations[name] = running._replace(looks=running.looks - 1)
            return operation
        operation.done = True
        try:
            finished = running.finish()
        except Refused as failure:
            operation.error.code, operation.error.message = failure.status, str(failure.document)
        else:
            operation.response.Pack(finished if isinstance(finished, empty_pb2.Empty) else type(finished).pb(finished))
        self._operations[name] = operation
        return operation

    def _cancel(self, name: str) -> empty_pb2.Empty:
        self.deploying.clear()
        self._operations.pop(name, None)
        return empty_pb2.Empty()

    def _predict(self, name: str, body: bytes, start_response: Callable) -> list[bytes]:
        endpoint = self.endpoint(name)
        if not endpoint.traffic_split:
            raise refused(400, f"Endpoint {name} has no traffic split")
        chosen = self.drawn(dict(endpoint.traffic_split))
        deployed = next(each for each in endpoint.deployed_models if each.id == chosen)
        container = self.model(deployed.model.rpartition("/")[2]).container_spec
        status, content = self.ask(version_of(container), container.predict_route, body)
        if status >= 400:
            raise refused(status if status in STATUS else 400, content.decode())
        start_response("200 OK", [("Content-Type", "application/json"),
                                  ("X-Vertex-AI-Deployed-Model-Id", chosen)])  # fmt: skip
        return [content]

    def _create_job(self, job: v1.BatchPredictionJob) -> v1.BatchPredictionJob:
        """Run it at once: Vertex AI hands the container the lines as instances, and writes each with its prediction."""
        required(job, "BatchPredictionJob")
        container = self.model(job.model.rpartition("/")[2]).container_spec
        (uri,) = job.input_config.gcs_source.uris
        lines = [json.loads(line) for line in self.object_at(uri).read_text().splitlines()]
        status, content = self.ask(version_of(container), container.predict_route,
                                   json.dumps({"instances": lines}).encode())  # fmt: skip
        if status >= 400:
            raise refused(400, content.decode())
        answered = zip(lines, json.loads(content)["predictions"], strict=True)
        folder = self.object_at(job.output_config.gcs_destination.output_uri_prefix)
        target = folder / "prediction.results-00000-of-00001"
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"instance": each, "prediction": found}) for each, found in answered]
        target.write_text("".join(f"{row}\n" for row in rows))
        job.name = f"{PARENT}/batchPredictionJobs/{len(self.jobs) + 1}"
        job.state = v1.JobState.JOB_STATE_SUCCEEDED
        self.jobs[job.name] = job
        return job

    def object_at(self, uri: str) -> Path:
        """Return the file that stands for an object."""
        return self._buckets / uri.removeprefix("gs://")

    def _list_jobs(self, environ: dict) -> dict[str, Any]:
        wanted = re.search(r"filter=display_name%3D%22([^%]+)%22", environ["QUERY_STRING"])
        found = [document_of(job) for job in self.jobs.values() if wanted and job.display_name == wanted[1]]
        return {"batchPredictionJobs": found}


def version_of(container: v1.ModelContainerSpec) -> str:
    return next(each.value for each in container.env if each.name == "RECSYS_RELEASE")


def check_split(split: Mapping[str, int], deployed: set[str]) -> None:
    if split and (sum(split.values()) != 100 or set(split) - deployed):
        raise refused(400, f"The traffic split {dict(split)} is not 100 % of what is deployed: {sorted(deployed)}")


def required(message: Any, kind: str) -> None:
    """Refuse a message that lacks one of the fields that Vertex AI wants."""
    for path in REQUIRED[kind]:
        value = message
        for field in path.split("."):
            value = getattr(value, field)
        if not value:
            raise refused(400, f"Required field {path} of {kind} is not set")


def parsed(kind: Any, body: bytes) -> Any:
    try:
        return kind(json_format.Parse(body, kind.pb(kind())))
    except json_format.ParseError as error:
        raise refused(400, f"Invalid JSON payload received. {error}") from error


def document_of(message: Any) -> Any:
    """Return a message as its JSON."""
    if isinstance(message, dict):
        return message
    pure = message if isinstance(message, Operation | empty_pb2.Empty) else type(message).pb(message)
    return json_format.MessageToDict(pure)


assert operation_types  # registers the metadata messages that operations may carry
