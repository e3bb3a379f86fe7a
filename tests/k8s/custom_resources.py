"""Holds custom resources against their operators' definitions: `python custom_resources.py FILE...`, in .venv-ops.

The models were generated from the definitions. They refuse wrong types and values, and forget what they do not know:
what does not come back out of them is a misspelt field. The exit code is the number of resources that are wrong.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.cert_manager.v1 import Certificate, Issuer
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

_BUILT_IN = ("v1", "apps/", "batch/", "policy/", "networking.k8s.io/")


def _through(model: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: model.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")


_READERS = {
    "cert-manager.io/v1 Certificate": _through(Certificate),
    "cert-manager.io/v1 Issuer": _through(Issuer),
    "jobset.x-k8s.io/v1alpha2 JobSet": lambda document: JobsetV1alpha2JobSet.from_dict(document).to_dict(),
    "keda.sh/v1alpha1 ScaledObject": _through(ScaledObject),
    "monitoring.coreos.com/v1 PodMonitor": _through(PodMonitor),
    "monitoring.coreos.com/v1 PrometheusRule": _through(PrometheusRule),
    "monitoring.coreos.com/v1 ServiceMonitor": _through(ServiceMonitor),
}


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a custom resource."""
    kind = f"{document['apiVersion']} {document['kind']}"
    if kind not in _READERS:
        return [f"{kind} is held against no definition; add it here"]
    try:
        return list(_lost(document, _READERS[kind](document), ""))
    except ValueError as error:  # pydantic's own is one
        return [str(error)]


def _lost(given: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from _lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield f"{path} is {given!r}, and the definition makes {kept!r} of it"


def main() -> None:
    """Prints how many were looked at, and what is wrong."""
    looked, wrong = 0, 0
    for file in sys.argv[1:]:
        for document in yaml.load_all(Path(file).read_text(), yaml.CSafeLoader):
            if document["apiVersion"].startswith(_BUILT_IN):
                continue
            looked += 1
            if found := problems(document):
                wrong += 1
                print(file, document["kind"], document["metadata"]["name"], *found, sep="\n  ")
    print(f"{looked} custom resources")
    raise SystemExit(wrong)


if __name__ == "__main__":
    main()
