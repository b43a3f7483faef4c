"""Kinds of other projects of which no package knows the form: the fields that we use, and no others.

Read from the CRDs of prometheus-operator/prometheus-operator example/prometheus-operator-crd and of
kubernetes-sigs/gateway-api config/crd/standard.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from tests.manifests.checks.schemas import METADATA

Schema = dict[str, Any]

NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def _form(required: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": required | (optional or {}),
        "required": list(required),
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _kind(spec: Schema) -> Draft202012Validator:
    return Draft202012Validator(_form({"apiVersion": {}, "kind": {}, "metadata": METADATA, "spec": spec}))


LABEL_NAME: Schema = {"type": "string", "pattern": "^[a-z_]+$"}
RELABELING = _form(
    {"sourceLabels": _list(LABEL_NAME)},
    {
        "action": {"const": "keep"},
        "regex": {"type": "string"},
        "replacement": {"type": "string"},
        "targetLabel": LABEL_NAME,
    },
)
POD_MONITOR = _form(
    {
        "selector": _form({"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}}),
        "podMetricsEndpoints": _list(
            _form(
                {"path": {"type": "string", "pattern": "^/"}},
                {"portNumber": PORT, "relabelings": _list(RELABELING)},
            )
        ),
    },
    {"podTargetLabels": _list({"type": "string"})},
)

TEXT: Schema = {"type": "string", "minLength": 1}
ALERT = _form(
    {
        "alert": {"type": "string", "pattern": "^Shangcai[A-Za-z]+$"},
        "expr": TEXT,
        "for": {"type": "string", "pattern": "^[0-9]{1,2}[mh]$"},
        "labels": _form({"severity": {"enum": ["critical", "warning"]}}),
        "annotations": _form({"summary": TEXT, "description": TEXT, "runbook_url": TEXT}),
    }
)
PROMETHEUS_RULE = _form({"groups": _list(_form({"name": NAME, "rules": _list(ALERT)}))})

HTTP_ROUTE = _form(
    {
        "parentRefs": _list(_form({"name": NAME}, {"namespace": NAME, "sectionName": NAME})),
        "hostnames": _list(NAME),
        "rules": _list(
            _form(
                {
                    "backendRefs": _list(_form({"name": NAME, "port": PORT})),
                    "timeouts": _form({"request": DURATION}, {"backendRequest": DURATION}),
                }
            )
        ),
    }
)

CUSTOM_KINDS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _kind(POD_MONITOR),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _kind(PROMETHEUS_RULE),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _kind(HTTP_ROUTE),
}
