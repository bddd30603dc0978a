"""The manifests of examples/kubernetes, as Kubernetes reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

FOLDER = Path(__file__).parent.parent / "examples" / "kubernetes"
NAMES = sorted(path.name for path in FOLDER.glob("*.yaml"))

Manifest = dict[str, Any]


class Pod(NamedTuple):
    """What a controller makes pods of."""

    metadata: Manifest
    spec: Manifest

    def container(self, name: str) -> Manifest:
        """A container, of those that come first, too."""
        (found,) = (one for one in self.containers() if one["name"] == name)
        return found

    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def as_document(self) -> Manifest:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self.metadata, "spec": self.spec}


def documents(name: str) -> list[Manifest]:
    """Every document of a file."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def pods(name: str) -> list[Pod]:
    """The pods that the objects of a file make."""
    templates = []
    for document in documents(name):
        spec = document["spec"]
        roles = spec.get("pytorchReplicaSpecs", {"": spec})
        templates += [role["template"] for role in roles.values()]
    return [Pod(template.get("metadata", {}), template["spec"]) for template in templates]


def variables(container: Manifest, pod_name: str = "") -> dict[str, str]:
    """The environment that the manifest itself gives to a container."""
    return {
        one["name"]: one["value"] if "value" in one else _field(one["valueFrom"], pod_name)
        for one in container.get("env", ())
    }


def _field(source: Manifest, pod_name: str) -> str:
    assert source == {"fieldRef": {"fieldPath": "metadata.name"}}
    return pod_name
