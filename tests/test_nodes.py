"""Which node of a job this is: what each launcher sets, and what comes of it."""

from __future__ import annotations

import pytest

from sysmetrics_native import nodes, settings

HOST = "node042"
SLURM_BATCH = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_NODEID": "0"}
SRUN = {**SLURM_BATCH, "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_PROCID": "5"}
SRUN_ONE_NODE = {**SLURM_BATCH, "SLURM_STEP_NUM_NODES": "1"}
SRUN_SOME_NODES = {**SRUN, "SLURM_JOB_NUM_NODES": "3"}
HETEROGENEOUS_BATCH = {
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_JOB_NUM_NODES_HET_GROUP_0": "1",
    "SLURM_JOB_NUM_NODES_HET_GROUP_1": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
}
HETEROGENEOUS = {**HETEROGENEOUS_BATCH, "SLURM_JOB_NUM_NODES": "3", "SLURM_STEP_NUM_NODES": "3"}
HETEROGENEOUS_GROUP = {**HETEROGENEOUS_BATCH, "SLURM_STEP_NUM_NODES": "2"}
MPIRUN_DAEMON = {**SRUN_ONE_NODE, "SLURM_NNODES": "1", "SLURM_PROCID": "0"}
TORCHRUN = {
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_RANK": "3",
    "LOCAL_WORLD_SIZE": "4",
    "RANK": "7",
    "WORLD_SIZE": "8",
}
TORCHRUN_ONE_NODE = {**TORCHRUN, "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "WORLD_SIZE": "4"}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "HOSTNAME": "train-1"}


def node_id(environ: dict[str, str]) -> str | None:
    return nodes.node_id(environ, lambda: HOST)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"HOSTNAME": "laptop", "RANK": "1", "WORLD_SIZE": "2"}, None, id="ranks alone"
        ),
        # Slurm
        pytest.param(SRUN, "1", id="srun"),
        pytest.param({"SLURM_NNODES": "2", "SLURM_NODEID": "1"}, "1", id="srun of an old Slurm"),
        pytest.param(SLURM_BATCH, "0", id="batch script"),
        pytest.param({**SRUN_ONE_NODE, "SLURM_JOB_NUM_NODES": "1"}, None, id="Slurm, one node"),
        pytest.param(SRUN_ONE_NODE, HOST, id="a step of one node of a larger job"),
        pytest.param(SRUN_SOME_NODES, HOST, id="a step of some nodes of a larger job"),
        pytest.param({"SLURM_JOB_NUM_NODES": "2"}, HOST, id="Slurm that does not number nodes"),
        pytest.param({"SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2"}, HOST, id="salloc"),
        pytest.param(HETEROGENEOUS_BATCH, "0", id="batch script of groups"),
        pytest.param({**HETEROGENEOUS, "SLURM_NODEID": "2"}, "2", id="a step over all groups"),
        pytest.param(HETEROGENEOUS_GROUP, HOST, id="a step of one group"),
        # torchrun
        pytest.param(TORCHRUN, "1", id="torchrun"),
        pytest.param(TORCHRUN_ONE_NODE, None, id="torchrun, one node"),
        pytest.param({**TORCHRUN, "GROUP_WORLD_SIZE": ""}, "1", id="torchrun by its ranks"),
        pytest.param(SRUN | TORCHRUN | {"GROUP_RANK": "0"}, "1", id="srun torchrun"),
        pytest.param(SRUN_ONE_NODE | TORCHRUN, "1", id="a loop of srun -N1 torchrun"),
        pytest.param(SRUN_SOME_NODES | TORCHRUN, "1", id="torchrun in a step of some nodes"),
        pytest.param(SLURM_BATCH | TORCHRUN, "1", id="torchrun in a batch script"),
        pytest.param({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, HOST, id="like torchrun"),
        # MPI
        pytest.param(MPIRUN, HOST, id="Open MPI"),
        pytest.param({**MPIRUN, "OMPI_COMM_WORLD_SIZE": "4"}, None, id="Open MPI, one node"),
        pytest.param({"PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}, HOST, id="Hydra"),
        pytest.param({"PMI_SIZE": "4", "MPI_LOCALNRANKS": "4"}, None, id="Hydra, one node"),
        pytest.param(SRUN | {"PMI_SIZE": "8"}, "1", id="srun that speaks PMI"),
        pytest.param(MPIRUN_DAEMON | MPIRUN, HOST, id="mpirun whose daemon srun has started"),
        pytest.param(
            SLURM_BATCH | MPIRUN | {"OMPI_COMM_WORLD_SIZE": "4"},
            None,
            id="mpirun on one node of two",
        ),
        pytest.param(MPIRUN | TORCHRUN, HOST, id="mpirun torchrun"),
        pytest.param(
            MPIRUN | TORCHRUN | {"OMPI_COMM_WORLD_SIZE": "4"}, "1", id="an mpirun torchrun per node"
        ),
        pytest.param(
            {**MPIRUN, **TORCHRUN_ONE_NODE, "OMPI_COMM_WORLD_SIZE": "4"},
            None,
            id="mpirun torchrun, one node",
        ),
        pytest.param(
            {"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_LOCAL_SIZE": "2"}, HOST, id="MVAPICH2"
        ),
        # Kubernetes
        pytest.param(POD, None, id="a pod"),
        pytest.param({**POD, "JOB_COMPLETION_INDEX": "0"}, "train-1", id="indexed job"),
        pytest.param(
            {**POD, "JOB_COMPLETION_INDEX": "0", "POD_NAME": "train-0-x7k2p"},
            "train-0-x7k2p",
            id="a pod that is told its name",
        ),
        pytest.param({**POD, "RANK": "0", "WORLD_SIZE": "2"}, "train-1", id="PyTorchJob"),
        pytest.param({**POD, "PET_NNODES": "2"}, "train-1", id="PyTorchJob for torchrun"),
        pytest.param({**POD, "PET_NNODES": "1:4"}, "train-1", id="elastic PyTorchJob"),
        pytest.param({**POD, "PET_NNODES": "1", "WORLD_SIZE": "4"}, None, id="one replica"),
        pytest.param(
            {**POD, "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, None, id="ranks in one pod"
        ),
        pytest.param(POD | TORCHRUN_ONE_NODE, None, id="torchrun in one pod"),
        pytest.param(POD | TORCHRUN, "1", id="torchrun in several pods"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "PET_NNODES": "2"}, HOST, id="nameless pod"
        ),
        # what nobody should set
        pytest.param({**TORCHRUN, "GROUP_RANK": "../x"}, HOST, id="a number that is none"),
        pytest.param({**SRUN, "SLURM_STEP_NUM_NODES": "two"}, "1", id="a count that is none"),
        pytest.param({**SRUN, "SLURM_NODEID": "9" * 400}, HOST, id="a number without end"),
        pytest.param({**MPIRUN, "OMPI_COMM_WORLD_SIZE": "-8"}, None, id="fewer than nothing"),
    ],
)
def test_node_id(environ: dict[str, str], expected: str | None) -> None:
    assert node_id(environ) == expected


@pytest.mark.parametrize("by", ["slot", "node"])
@pytest.mark.parametrize("sizes", [(4, 4), (2, 2, 4), (1, 3)])
def test_ranks_of_mpi_that_share_a_node_agree_and_others_do_not(
    by: str, sizes: tuple[int, ...]
) -> None:
    """However they are spread over the nodes."""
    places = [(node, local) for node, size in enumerate(sizes) for local in range(size)]
    if by == "node":
        places.sort(key=lambda place: place[::-1])
    ids: dict[int, set[str | None]] = {}
    for rank, (node, local) in enumerate(places):
        environ = {
            "OMPI_COMM_WORLD_SIZE": str(len(places)),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(sizes[node]),
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        }
        ids.setdefault(node, set()).add(nodes.node_id(environ, f"host{node}".strip))
    assert ids == {node: {f"host{node}"} for node in range(len(sizes))}


def test_every_variable_is_documented_and_cleared_for_tests() -> None:
    assert nodes.__doc__ is not None
    for name in nodes.VARIABLES:
        assert f"``{name}``" in nodes.__doc__, name


def test_what_is_set_beats_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert settings.mlflow_node_id(None) == "1"
    settings.configure(node_id="option")
    assert settings.mlflow_node_id(None) == "option"
    assert settings.mlflow_node_id("argument") == "argument"
    settings.set_system_metrics_node_id("variable")
    assert settings.mlflow_node_id("argument") == "variable"


@pytest.mark.parametrize(("name", "expected"), [("a pod:1/..", "a pod_1"), ("..", "me")])
def test_a_name_that_mlflow_would_refuse_is_cleaned(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "me")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("POD_NAME", name)
    assert settings.mlflow_node_id(None) == expected


@pytest.mark.parametrize(
    ("variables", "most"),
    [
        ({}, None),
        ({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"}, 16),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 4),
        ({"SLURM_JOB_NUM_NODES": "200", "SLURM_STEP_NUM_NODES": "200"}, 200),
        ({"WORLD_SIZE": "0"}, None),
        ({"WORLD_SIZE": "many"}, None),
    ],
)
def test_how_many_nodes_there_are_at_most(variables: dict[str, str], most: int | None) -> None:
    assert nodes.most_nodes(variables) == most
