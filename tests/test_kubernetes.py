"""The manifests of examples/kubernetes: against the published schemas, and against one another."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from sysmetrics_native import settings
from tests import manifests
from tests.manifests import NAMES, Manifest, Pod

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed"
)

VERSIONS = ("1.29", "1.37")
"""The first that has sidecars without a switch, and the newest that the schemas are there of."""

OF_MLFLOW = {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN"}
OF_OTHERS = {"HOME", "POD_NAME", "TARGET"}
PAGE = Path(__file__).parent.parent / "docs" / "kubernetes.md"


def documents_with_schema(name: str) -> list[Manifest]:
    """Those of a kind that Kubernetes has itself; of others the pods that they make."""
    if manifests.documents(name)[0]["apiVersion"].startswith("kubeflow.org/"):
        return [pod.as_document() for pod in manifests.pods(name)]
    return manifests.documents(name)


def every_pod() -> list[Pod]:
    return [pod for name in NAMES for pod in manifests.pods(name)]


def every_container() -> list[Manifest]:
    return [container for pod in every_pod() for container in pod.containers()]


# ---- the schemas --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_what_the_schemas_say(name: str, version: str) -> None:
    documents = documents_with_schema(name)
    assert documents
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version


BREAKS = [
    ("spec.parallelism", "four"),
    ("spec.template.spec.terminationGracePeriod", 60),
    ("spec.template.spec.volumes", {"name": "tmp"}),
    ("spec.template.spec.initContainers", [{"image": "without-a-name"}]),
]


@pytest.mark.parametrize(("place", "value"), BREAKS, ids=[place for place, _ in BREAKS])
def test_a_manifest_that_is_wrong_is_refused(place: str, value: object) -> None:
    document = copy.deepcopy(manifests.documents("in-process.yaml")[0])
    *above, last = place.split(".")
    at = document
    for key in above:
        at = at[key]
    at[last] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_versions_without_sidecars_refuse_them() -> None:
    (document,) = manifests.documents("sidecar.yaml")
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicy"):
        kubernetes_validate.validate(document, "1.27", strict=True)


# ---- what they say to us ------------------------------------------------------------------------


def test_there_are_manifests_and_the_page_names_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(NAMES) >= 4
    for name in NAMES:
        assert f"(../examples/kubernetes/{name})" in page


def known_variables() -> set[str]:
    ours = {f"{settings.ENVIRONMENT_PREFIX}{one.name.upper()}" for one in settings.in_force()}
    return ours | {one.name for one in settings.in_force() if one.name.startswith("MLFLOW_")}


def test_every_variable_is_known() -> None:
    named = {name for one in every_container() for name in manifests.variables(one)}
    assert named - OF_OTHERS <= known_variables()
    assert {"SYSMETRICS_NATIVE_SPOOL_DIR", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"} < named
    texts = [path.read_text(encoding="utf-8") for path in (*manifests.FOLDER.iterdir(), PAGE)]
    words = {
        word for text in texts for word in re.findall(r"\b(?:MLFLOW|SYSMETRICS)_[A-Z_]+\b", text)
    }
    assert words <= known_variables() | OF_MLFLOW


def test_every_value_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for container in every_container():
        with monkeypatch.context() as patch:
            for name, value in manifests.variables(container, "train-0-x7k2f").items():
                # These name folders that only the container has.
                if not name.endswith(("_PROCFS_PATH", "_SYSFS_PATH")):
                    patch.setenv(name, value)
            assert [one.problem for one in settings.in_force() if one.problem] == []
            assert settings.unknown_variables() == ()


def test_paths_are_those_of_mounts() -> None:
    seen = set()
    for container in every_container():
        mounts = {one["mountPath"] for one in container["volumeMounts"]}
        for name, value in manifests.variables(container).items():
            if value.startswith("/"):
                assert value in mounts, (container["name"], name)
                seen.add(name)
    assert {"HOME", "SYSMETRICS_NATIVE_PROCFS_PATH", "SYSMETRICS_NATIVE_SPOOL_DIR"} < seen


def test_mounts_are_those_of_volumes() -> None:
    for pod in every_pod():
        volumes = {one["name"]: one for one in pod.spec["volumes"]}
        used = {mount["name"] for one in pod.containers() for mount in one["volumeMounts"]}
        assert used == set(volumes)
        for one in pod.containers():
            for mount in one["volumeMounts"]:
                if "hostPath" in volumes[mount["name"]]:
                    assert mount["readOnly"] is True


def test_the_end_has_time_enough() -> None:
    """What `shutdown_timeout` allows, and for `recover` what the manifest itself does."""
    for pod in every_pod():
        grace = pod.spec["terminationGracePeriodSeconds"]
        for container in pod.containers():
            text = manifests.variables(container).get("SYSMETRICS_NATIVE_SHUTDOWN_TIMEOUT", "10")
            needed = float(text) + 1.0
            if container["name"] == "recover":
                (seconds,) = re.findall(r"exec timeout (\d+) ", container["args"][0])
                needed += float(seconds)
            assert needed < grace


def test_what_restricted_namespaces_ask_for() -> None:
    """Of all that may need no more: two see the node, or are the operator's."""
    for name in ("in-process.yaml", "sidecar.yaml"):
        (pod,) = manifests.pods(name)
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(one) <= {"name", "emptyDir"} for one in pod.spec["volumes"])
        for container in pod.containers():
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_inline_programs_are_in_a_form_that_is_read() -> None:
    programs = [one["args"][0] for one in every_container() if one["command"] == ["python", "-c"]]
    assert len(programs) == 2
    for program in programs:
        compile(program, "manifest", "exec")
        assert all(len(line) <= 100 for line in program.splitlines())
