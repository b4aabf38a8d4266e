"""How many replicas: one pure policy, and each cloud's own configuration from it.

The policy is what all four autoscalers can carry out: for each measure the replicas that would bring it back to its
target, of these the largest, bounded in how fast it may grow and shrink. (Kubernetes' HPA is exactly this; target
tracking and step rules are cases of it.) It looks at what is asked of the service, not at how busy it is: processor
use stops at 100 %, so in a flash crowd it cannot say how much is missing, and time spent waiting does not show in it
at all.

    work/s        requests/s, an answer from the cache counted as `hit_cost` of a computed one
    p95           of the answers against an aim below the promise, as a root of their ratio; at most a doubling at a
                  time. A queue's p95 is steep: replicas in proportion to it would overshoot, and shrink too far after

Sources: Kubernetes "Horizontal Pod Autoscaling" (algorithm details, behavior), Application Auto Scaling "Target
tracking" and "Step scaling", Azure Monitor "Autoscale settings", Vertex AI "Scale inference nodes".
"""

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ScalingPolicy(BaseModel):
    """What a replica carries and what is promised. Rates are per second, of one replica of `cores` processor cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(2, ge=1)
    max_replicas: int = Field(20, ge=1)
    capacity: float = Field(400.0, gt=0, description="computed answers/s at which one replica is full; measure it")
    utilisation: float = Field(0.82, gt=0, lt=1, description="share of the capacity to run at")
    hit_cost: float = Field(0.2, ge=0, le=1, description="what an answer from the cache costs of a computed one")
    planned_hit_ratio: float = Field(0.3, ge=0, lt=1, description="for autoscalers that cannot see the hit ratio")
    p95_ms: float = Field(100.0, gt=0, description="promised")
    p95_aim: float = Field(0.7, gt=0, le=1, description="share of the promise to run at")
    p95_damping: float = Field(0.4, gt=0, le=1, description="power of p95 over its aim that replicas follow")
    cpu_percent: int = Field(75, gt=0, le=100, description="a second guard where the platform has it at no cost")
    memory_percent: int = Field(80, gt=0, le=100)
    tolerance: float = Field(0.1, ge=0, description="a measure so near to its target changes nothing")
    growth: float = Field(2.0, gt=1, description="at most so many times the replicas in one decision")
    shrink_after_s: int = Field(300, ge=0, description="shrinks to the largest number wanted in this time")

    def told(self) -> str:
        """Return the policy as `field=value` pairs that fit a cloud's tag: only what is not the default."""
        given = self.model_dump(exclude_defaults=True)
        return " ".join(f"{name}={value}" for name, value in given.items()) or "default"

    @classmethod
    def heard(cls, told: str) -> "ScalingPolicy":
        """Return the policy that was told so."""
        return cls.model_validate(dict(pair.split("=", 1) for pair in told.split() if "=" in pair))

    @property
    def work_target(self) -> float:
        """Work a second that one replica should carry."""
        return self.capacity * self.utilisation

    @property
    def p95_target_ms(self) -> float:
        """Above it replicas are added, and below it so many are kept that it should not be reached again."""
        return self.p95_ms * self.p95_aim

    @property
    def requests_target(self) -> float:
        """Requests a second of one replica at the planned hit ratio, for autoscalers that count requests only."""
        return self.work_target / weight(self.planned_hit_ratio, self.hit_cost)


def weight(hit_ratio: float, hit_cost: float) -> float:
    """Return the work of a mean request: 1 when nothing comes from the cache."""
    return 1 - hit_ratio * (1 - hit_cost)


def replicas_wanted(
    policy: ScalingPolicy, replicas: int, requests_per_second: float, p95_ms: float, hit_ratio: float
) -> int:
    """Return how many replicas these measures ask for, within the policy's bounds. Pure; no memory of before.

    Args:
        replicas: that answer now, at least 1.
        requests_per_second: of all of them together.
        hit_ratio: share answered from the cache.
    """
    work = requests_per_second * weight(hit_ratio, policy.hit_cost)
    slow = (p95_ms / policy.p95_target_ms) ** policy.p95_damping
    ratios = (work / (replicas * policy.work_target), min(2.0, slow))
    wanted = max(
        math.ceil(round(replicas * ratio, 6)) if abs(ratio - 1) > policy.tolerance else replicas for ratio in ratios
    )
    bounded = min(wanted, math.floor(replicas * policy.growth))
    return max(policy.min_replicas, min(policy.max_replicas, bounded))


STEPS = (25, 50, 100)
"""Percent more replicas, for autoscalers that take steps instead of a ratio."""


def slowness_at(policy: ScalingPolicy, percent: int) -> float:
    """Return how many times its aim the p95 is where the policy wants so many percent more replicas."""
    return (1 + percent / 100) ** (1 / policy.p95_damping)


def sagemaker(policy: ScalingPolicy, endpoint: str, variant: str) -> dict[str, Any]:
    """Return Application Auto Scaling's requests for one variant: target tracking, and a step on p95 with its alarm."""
    resource = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{variant}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    return {
        "RegisterScalableTarget": {
            **resource, "MinCapacity": policy.min_replicas, "MaxCapacity": policy.max_replicas,
        },
        "PutScalingPolicy": [
            _tracking(policy, resource, f"{endpoint}-{variant}-requests",
                      {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}),
            _stepping(resource, f"{endpoint}-{variant}-p95", _steps(policy, unit=1000)),
        ],
        "PutMetricAlarm": {
            "AlarmName": f"{endpoint}-{variant}-p95",
            "Namespace": "AWS/SageMaker",
            "MetricName": "ModelLatency",
            "Dimensions": dimensions,
            "ExtendedStatistic": "p95",
            "Unit": "Microseconds",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": policy.p95_target_ms * 1000.0,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        },
    }  # fmt: skip


def ecs(policy: ScalingPolicy, cluster: str, service: str, balancer: str, group: str) -> dict[str, Any]:
    """Return the same for a service on ECS behind an Application Load Balancer, which counts and times the requests.

    Args:
        balancer: `app/<name>/<id>`, as CloudWatch names a load balancer.
        group: `targetgroup/<name>/<id>`.
    """
    resource = {
        "ServiceNamespace": "ecs",
        "ResourceId": f"service/{cluster}/{service}",
        "ScalableDimension": "ecs:service:DesiredCount",
    }
    name = f"{cluster}-{service}"
    counted = {"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": f"{balancer}/{group}"}
    return {
        "RegisterScalableTarget": {**resource, "MinCapacity": policy.min_replicas, "MaxCapacity": policy.max_replicas},
        "PutScalingPolicy": [
            _tracking(policy, resource, f"{name}-requests", counted),
            _stepping(resource, f"{name}-p95", _steps(policy, unit=0.001)),
        ],
        "PutMetricAlarm": {
            "AlarmName": f"{name}-p95",
            "Namespace": "AWS/ApplicationELB",
            "MetricName": "TargetResponseTime",
            "Dimensions": [{"Name": "LoadBalancer", "Value": balancer}, {"Name": "TargetGroup", "Value": group}],
            "ExtendedStatistic": "p95",
            "Unit": "Seconds",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": policy.p95_target_ms / 1000,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        },
    }


def _tracking(policy: ScalingPolicy, resource: dict[str, str], name: str, counted: dict[str, str]) -> dict[str, Any]:
    return {
        **resource,
        "PolicyName": name,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": round(policy.requests_target * 60, 1),
            "PredefinedMetricSpecification": counted,
            "ScaleOutCooldown": 0,
            "ScaleInCooldown": policy.shrink_after_s,
        },
    }


def _stepping(resource: dict[str, str], name: str, steps: list[dict[str, float]]) -> dict[str, Any]:
    return {
        **resource,
        "PolicyName": name,
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "PercentChangeInCapacity",
            "MinAdjustmentMagnitude": 1,
            "Cooldown": 60,
            "MetricAggregationType": "Average",
            "StepAdjustments": steps,
        },
    }


def _steps(policy: ScalingPolicy, unit: float) -> list[dict[str, float]]:
    """Return the steps of a p95 alarm above its threshold, the last one open. A millisecond is `unit` there."""
    aim, places = policy.p95_target_ms * unit, 1 if unit > 1 else 4
    bounds = [0.0, *(round(aim * (slowness_at(policy, percent) - 1), places) for percent in STEPS[:-1])]
    return [
        {"MetricIntervalLowerBound": low, **({"MetricIntervalUpperBound": high} if high else {}),
         "ScalingAdjustment": percent}
        for low, high, percent in zip(bounds, [*bounds[1:], None], STEPS, strict=True)
    ]  # fmt: skip


def hpa(policy: ScalingPolicy, name: str) -> dict[str, Any]:
    """Return the HorizontalPodAutoscaler (autoscaling/v2) of a Deployment, on GKE and every other Kubernetes.

    `recsys_work_per_second` and `recsys_p95_damped` come through the custom metrics API (infra/k8s/README.md).
    """

    def pods(metric: str, value: str) -> dict[str, Any]:
        return {
            "type": "Pods",
            "pods": {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": value}},
        }

    def resource(metric: str, percent: int) -> dict[str, Any]:
        target = {"type": "Utilization", "averageUtilization": percent}
        return {"type": "Resource", "resource": {"name": metric, "target": target}}

    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": policy.min_replicas,
            "maxReplicas": policy.max_replicas,
            "metrics": [
                pods("recsys_work_per_second", f"{policy.work_target * 1000:.0f}m"),
                pods("recsys_p95_damped", f"{policy.p95_target_ms**policy.p95_damping * 1000:.0f}m"),
                resource("cpu", policy.cpu_percent),
                resource("memory", policy.memory_percent),
            ],
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "policies": [{"type": "Percent", "value": round((policy.growth - 1) * 100), "periodSeconds": 15}],
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": policy.shrink_after_s,
                    "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                },
            },
        },
    }


def vertex(policy: ScalingPolicy) -> dict[str, Any]:
    """Return the autoscaling part of Vertex AI's DedicatedResources; Vertex has no measure of latency."""
    return {
        "minReplicaCount": policy.min_replicas,
        "maxReplicaCount": policy.max_replicas,
        "autoscalingMetricSpecs": [
            {
                "metricName": "aiplatform.googleapis.com/prediction/online/request_count",
                "target": round(policy.requests_target * 60),
            },
            {"metricName": "aiplatform.googleapis.com/prediction/online/cpu/utilization", "target": policy.cpu_percent},
        ],
    }


def azure(policy: ScalingPolicy, deployment_id: str) -> dict[str, Any]:
    """Return the profile of an Azure Monitor autoscale setting for one managed online deployment."""

    def rule(
        metric: str, operator: str, threshold: float, direction: str, percent: int, minutes: int
    ) -> dict[str, Any]:
        return {
            "metricTrigger": {
                "metricName": metric,
                "metricResourceUri": deployment_id,
                "timeGrain": "PT1M",
                "statistic": "Average",
                "timeWindow": f"PT{minutes}M",
                "timeAggregation": "Average",
                "operator": operator,
                "threshold": threshold,
                "dividePerInstance": metric == "RequestsPerMinute",
            },
            "scaleAction": {
                "direction": direction,
                "type": "PercentChangeCount",
                "value": str(percent),
                "cooldown": f"PT{minutes}M",
            },
        }

    requests = round(policy.requests_target * 60, 1)
    shrink = max(1, policy.shrink_after_s // 60)
    return {
        "name": "requests and latency",
        "capacity": {
            "minimum": str(policy.min_replicas),
            "maximum": str(policy.max_replicas),
            "default": str(policy.min_replicas),
        },
        "rules": [
            rule("RequestsPerMinute", "GreaterThan", requests, "Increase", 100, 1),
            *(
                rule("RequestLatency_P95", "GreaterThan", threshold, "Increase", percent, 1)
                for threshold, percent in (
                    (policy.p95_target_ms, STEPS[0]),
                    (round(policy.p95_target_ms * slowness_at(policy, STEPS[1]), 1), STEPS[-1]),
                )
            ),
            rule("RequestsPerMinute", "LessThan", round(requests / 2, 1), "Decrease", 25, shrink),
        ],
    }
