"""Vertex AI by its SDK's typed clients over REST; loaded when first needed.

The typed clients, not the convenience classes above them: those wait for a deployment without an end, let the id of a
deployed model be drawn, and cannot change how one scales. An answer is asked for by `rawPredict`, which hands the
container's bytes on; `predict` would turn every number into a float.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from infra.gcp.blueprint import KINDS, PORT, PREFIX, GcpConfig, deployed_id
from infra.targets import CloudFault, Key, NotReady, Release, Transient, digest_of

POLL_SECONDS = 5
MONITORING = "https://monitoring.googleapis.com"
LABELS = {"recsys": "serving"}
OURS = "labels.recsys=serving"
NOTE = "recsys-scaling "
"""Begins the endpoint's description; a label's value could not hold a policy."""


class Absent(Exception):
    """Vertex AI says that there is none."""


class GcpPlane:
    """The actual state in one project and location.

    Args:
        sleep: waits between looks at an operation.
    """

    def __init__(self, config: GcpConfig, sleep: Callable[[float], None]):
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import aiplatform_v1

        self._config, self._sleep, self._types = config, sleep, aiplatform_v1
        self._parent = f"projects/{config.project}/locations/{config.location}"
        self._endpoint_name = f"{self._parent}/endpoints/{config.endpoint}"
        with translated(Key("project", config.project)):
            credentials = _credentials(config)
        address = config.api_endpoint or f"{config.location}-aiplatform.googleapis.com"
        options = {"credentials": credentials, "transport": "rest", "client_options": {"api_endpoint": address}}
        self._models = aiplatform_v1.ModelServiceClient(**options)
        self._endpoints = aiplatform_v1.EndpointServiceClient(**options)
        self._jobs = aiplatform_v1.JobServiceClient(**options)
        self._session = AuthorizedSession(credentials)
        self._url = address if "://" in address else f"https://{address}"

    def read(self, key: Key) -> dict[str, Any] | None:
        try:
            with translated(key):
                return getattr(self, f"_read_{key.kind}")(key.name)
        except Absent:
            return None

    def owned(self) -> list[Key]:
        with translated(Key("project", self._config.project)):
            asked = {"parent": self._parent, "filter": OURS}
            models = list(self._models.list_models(request=asked, retry=None))
            endpoints = list(self._endpoints.list_endpoints(request=asked, retry=None))
        found = [Key("model", _short(model.name)) for model in models]
        for endpoint in endpoints:
            name = _short(endpoint.name)
            if name != self._config.endpoint:
                continue
            found.append(Key("endpoint", name))
            found += [Key("deployment", f"{name}/{each.display_name}") for each in endpoint.deployed_models]
            if endpoint.traffic_split:
                found.append(Key("traffic", name))
        return sorted(found, key=lambda key: KINDS.index(key.kind))

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        with translated(key):
            getattr(self, f"_create_{key.kind}")(key.name, spec)

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        if key.kind not in ("deployment", "traffic"):
            raise CloudFault(key.kind, key.name, "It is not what its name says; remove it by hand and deploy again")
        with translated(key):
            getattr(self, f"_update_{key.kind}")(key.name, spec)

    def delete(self, key: Key) -> None:
        try:
            with translated(key):
                getattr(self, f"_delete_{key.kind}")(key.name)
        except Absent:
            return

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from google.api_core.exceptions import from_http_response

        with translated(Key("endpoint", self._config.endpoint)):
            answer = self._session.post(
                f"{self._url}/v1/{self._endpoint_name}:rawPredict",
                data=json.dumps({"instances": [request]}),
                headers={"Content-Type": "application/json"},
                timeout=60,
            )
            if answer.status_code >= 400:
                raise from_http_response(answer)
        (prediction,) = answer.json()["predictions"]
        return prediction

    def requests(self, since: datetime, until: datetime) -> int | None:
        from google.api_core.exceptions import from_http_response

        metric = "aiplatform.googleapis.com/prediction/online/response_count"
        asked = {
            "filter": f'metric.type="{metric}" AND resource.labels.endpoint_id="{self._config.endpoint}"',
            "interval.startTime": since.isoformat(), "interval.endTime": until.isoformat(),
            "aggregation.alignmentPeriod": f"{round((until - since).total_seconds())}s",
            "aggregation.perSeriesAligner": "ALIGN_SUM", "aggregation.crossSeriesReducer": "REDUCE_SUM",
        }  # fmt: skip
        monitoring = self._config.api_endpoint or MONITORING
        with translated(Key("endpoint", self._config.endpoint)):
            answer = self._session.get(
                f"{monitoring}/v3/projects/{self._config.project}/timeSeries", params=asked, timeout=60
            )
            if answer.status_code >= 400:
                raise from_http_response(answer)
        series = answer.json().get("timeSeries", [])
        return sum(int(point["value"]["int64Value"]) for each in series for point in each["points"])

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a batch prediction: each line of the objects at `source` (gs://) becomes one instance.

        Its name is drawn by Vertex AI, so a job of the same release, source and destination is looked for first.
        """
        types = self._types
        display_name = f"{PREFIX}-{release.name}-{digest_of([source, destination])}"
        job = types.BatchPredictionJob(
            display_name=display_name,
            model=f"{self._parent}/models/{PREFIX}-{release.name}",
            input_config=types.BatchPredictionJob.InputConfig(
                instances_format="jsonl", gcs_source=types.GcsSource(uris=[source])
            ),
            output_config=types.BatchPredictionJob.OutputConfig(
                predictions_format="jsonl", gcs_destination=types.GcsDestination(output_uri_prefix=destination)
            ),
            dedicated_resources=types.BatchDedicatedResources(
                machine_spec=types.MachineSpec(machine_type=self._config.machine_type),
                starting_replica_count=1,
                max_replica_count=1,
            ),
            service_account=self._config.service_account,
            labels=LABELS,
        )
        with translated(Key("batch_prediction_job", display_name)):
            asked = {"parent": self._parent, "filter": f'display_name="{display_name}"'}
            for found in self._jobs.list_batch_prediction_jobs(request=asked, retry=None):
                return found.name
            return self._jobs.create_batch_prediction_job(
                parent=self._parent, batch_prediction_job=job, retry=None
            ).name

    def _endpoint(self) -> Any:
        return self._endpoints.get_endpoint(name=self._endpoint_name, retry=None)

    def _deployed(self, name: str) -> Any:
        for deployed in self._endpoint().deployed_models:
            if deployed.display_name == name.partition("/")[2]:
                return deployed
        raise Absent(name)

    def _done(self, operation: Any, what: str) -> None:
        """Wait for a long-running operation.

        Raises:
            NotReady: it is not done after the configured time. It is cancelled; if it is done all the same, the
            ledger's line finds what it made.
        """
        for _ in range(max(1, self._config.wait_seconds // POLL_SECONDS)):
            if operation.done(retry=None):
                if (error := operation.exception()) is not None:
                    raise error
                return
            self._sleep(POLL_SECONDS)
        # By hand: the SDK's REST transport cannot cancel (it looks for a body that it has left out).
        self._session.post(f"{self._url}/v1/{operation.operation.name}:cancel", timeout=60)
        raise NotReady("operation", what, f"It was not done after {self._config.wait_seconds} s")

    def _read_model(self, name: str) -> dict[str, Any]:
        container = self._models.get_model(name=f"{self._parent}/models/{name}", retry=None).container_spec
        return {"image": container.image_uri, "environment": {each.name: each.value for each in container.env}}

    def _create_model(self, name: str, spec: dict[str, Any]) -> None:
        types = self._types
        container = types.ModelContainerSpec(
            image_uri=spec["image"],
            args=["serve"],
            env=[types.EnvVar(name=key, value=value) for key, value in spec["environment"].items()],
            ports=[types.Port(container_port=PORT)],
            predict_route="/predict",
            health_route="/ping",
        )
        model = types.Model(display_name=name, container_spec=container, labels=LABELS)
        asked = types.UploadModelRequest(parent=self._parent, model_id=name, model=model)
        self._done(self._models.upload_model(request=asked, retry=None), name)

    def _delete_model(self, name: str) -> None:
        self._done(self._models.delete_model(name=f"{self._parent}/models/{name}", retry=None), name)

    def _read_endpoint(self, name: str) -> dict[str, Any]:
        self._endpoint()
        return {}

    def _create_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        endpoint = self._types.Endpoint(display_name=name, labels=LABELS)
        asked = self._types.CreateEndpointRequest(parent=self._parent, endpoint=endpoint, endpoint_id=name)
        self._done(self._endpoints.create_endpoint(request=asked, retry=None), name)

    def _delete_endpoint(self, name: str) -> None:
        self._done(self._endpoints.delete_endpoint(name=self._endpoint_name, retry=None), name)

    def _read_deployment(self, name: str) -> dict[str, Any]:
        deployed = self._deployed(name)
        resources = deployed.dedicated_resources
        return {
            "model": _short(deployed.model),
            "machine_type": resources.machine_spec.machine_type,
            "service_account": deployed.service_account,
            "minReplicaCount": resources.min_replica_count,
            "maxReplicaCount": resources.max_replica_count,
            "autoscalingMetricSpecs": [
                {"metricName": metric.metric_name, "target": metric.target}
                for metric in resources.autoscaling_metric_specs
            ],
        }

    def _deployment(self, name: str, spec: dict[str, Any]) -> Any:
        types, release = self._types, name.partition("/")[2]
        return types.DeployedModel(
            id=deployed_id(release),
            display_name=release,
            model=f"{self._parent}/models/{spec['model']}",
            service_account=spec["service_account"],
            enable_access_logging=False,
            dedicated_resources=types.DedicatedResources(
                machine_spec=types.MachineSpec(machine_type=spec["machine_type"]),
                min_replica_count=spec["minReplicaCount"],
                max_replica_count=spec["maxReplicaCount"],
                autoscaling_metric_specs=[
                    types.AutoscalingMetricSpec(metric_name=metric["metricName"], target=metric["target"])
                    for metric in spec["autoscalingMetricSpecs"]
                ],
            ),
        )

    def _create_deployment(self, name: str, spec: dict[str, Any]) -> None:
        asked = {"endpoint": self._endpoint_name, "deployed_model": self._deployment(name, spec)}
        try:
            self._done(self._endpoints.deploy_model(request=asked, retry=None), name)
        except NotReady:
            raise
        except Exception as error:
            if not _is_going_on(error):
                raise
            self._wait_for_deployment(name)

    def _wait_for_deployment(self, name: str) -> None:
        """Wait for a deployment that a process before this one began, and did not live to see."""
        for _ in range(max(1, self._config.wait_seconds // POLL_SECONDS)):
            if self.read(Key("deployment", name)) is not None:
                raise FileExistsError(name)
            self._sleep(POLL_SECONDS)
        raise NotReady("deployment", name, f"It was not there after {self._config.wait_seconds} s")

    def _update_deployment(self, name: str, spec: dict[str, Any]) -> None:
        """Change how many replicas there are; another machine or model is another deployment to Vertex AI."""
        actual = self._read_deployment(name)
        fixed = ("model", "machine_type", "service_account")
        if any(actual[field] != spec[field] for field in fixed):
            raise CloudFault("deployment", name, "Its machine cannot be changed while it serves; deploy a new release")
        fields = ("min_replica_count", "max_replica_count", "autoscaling_metric_specs")
        asked = {
            "endpoint": self._endpoint_name,
            "deployed_model": self._deployment(name, spec),
            "update_mask": {"paths": [f"dedicated_resources.{field}" for field in fields]},
        }
        self._done(self._endpoints.mutate_deployed_model(request=asked, retry=None), name)

    def _delete_deployment(self, name: str) -> None:
        asked = {"endpoint": self._endpoint_name, "deployed_model_id": self._deployed(name).id}
        self._done(self._endpoints.undeploy_model(request=asked, retry=None), name)

    def _read_traffic(self, name: str) -> dict[str, Any]:
        endpoint = self._endpoint()
        if not endpoint.traffic_split:
            raise Absent(name)
        names = {deployed.id: deployed.display_name for deployed in endpoint.deployed_models}
        shares = {names[deployed]: share for deployed, share in endpoint.traffic_split.items()}
        note = endpoint.description.removeprefix(NOTE) if endpoint.description.startswith(NOTE) else None
        return {"shares": shares, **({"policy": note} if note else {})}

    def _update_traffic(self, name: str, spec: dict[str, Any]) -> None:
        policy = spec.get("policy")
        endpoint = self._types.Endpoint(
            name=self._endpoint_name,
            traffic_split={deployed_id(release): share for release, share in spec["shares"].items()},
            description=f"{NOTE}{policy}" if policy else "",
        )
        mask = {"paths": ["traffic_split", "description"]}
        self._endpoints.update_endpoint(endpoint=endpoint, update_mask=mask, retry=None)

    _create_traffic = _update_traffic

    def _delete_traffic(self, name: str) -> None:
        self._update_traffic(name, {"shares": {}})


def _short(resource_name: str) -> str:
    return resource_name.rpartition("/")[2].partition("@")[0]


def _credentials(config: GcpConfig) -> Any:
    """Return the application's default credentials; over plain HTTP none, which no token may travel."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if config.api_endpoint.startswith("http://"):
        return AnonymousCredentials()
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return credentials


def _is_going_on(error: Exception) -> bool:
    return getattr(error, "code", None) == 409 and "in progress" in str(error)


@contextmanager
def translated(key: Key) -> Iterator[None]:
    """Turn Google's errors into ours; `Absent` and FileExistsError are part of the answer."""
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        yield
    except GoogleAPICallError as error:
        raise fault_of(error, key) from error
    except (requests.ConnectionError, requests.Timeout, TransportError) as error:
        raise Transient(key.kind, error, "Google is not reached; the step may run again") from error
    except GoogleAuthError as error:
        raise CloudFault("Google credentials", error, "Sign in (`gcloud auth application-default login`)") from error


def fault_of(error: Any, key: Key) -> Exception:
    """Return what an API error of Google means for us.

    A quota that is used up and a rate that was exceeded share one code (RESOURCE_EXHAUSTED); only the latter passes by
    itself, and its message names the quota metric and "per minute".
    """
    code, message = int(error.code or 0), str(error.message)
    what = f"{key.name}: {code} {message}"
    if code == 429 and "quotas are exceeded" in message:
        return CloudFault("Google quota", what, "Ask for more in IAM & Admin → Quotas, or take a smaller machine")
    if code == 429 or code >= 500 or (code == 409 and "ABORTED" in message):
        return Transient(key.kind, what, "Google asks for patience; the step may run again")
    if code in (401, 403):
        return CloudFault("Google credentials", what, "Renew them or extend the role, then run the step again")
    if code == 404 and key.name.partition("/")[0] in message:
        return Absent(key.name)
    if code == 409:
        return FileExistsError(key.name)
    if key.kind == "deployment":
        return NotReady(key.kind, what, "See the endpoint's log in Cloud Logging")
    return CloudFault(key.kind, what, "See the message")
