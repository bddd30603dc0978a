"""Which node of a job this is, as its launcher says.

Only a job of more than one node has a node id: the keys of a single machine stay plain. Whatever is
decided here all ranks of one node must decide alike, and no two nodes: else one node has two series,
or two nodes share one. So a number is taken only where the launcher itself counts nodes; where it
counts processes the name of the host tells nodes apart, because how processes are spread over nodes
is nothing that one of them could see.

| launcher | more than one node | node id | documented in |
| --- | --- | --- | --- |
| Open MPI's ``mpirun`` | ``OMPI_COMM_WORLD_SIZE`` > ``OMPI_COMM_WORLD_LOCAL_SIZE`` | host name | Open MPI, mpirun(1), "Exported Environment Variables" |
| MVAPICH2 | ``MV2_COMM_WORLD_SIZE`` > ``MV2_COMM_WORLD_LOCAL_SIZE`` | host name | MVAPICH2 User Guide |
| Hydra (MPICH, Intel MPI) | ``PMI_SIZE`` > ``MPI_LOCALNRANKS`` | host name | MPICH, "Using the Hydra Process Manager" |
| ``srun`` | ``SLURM_STEP_NUM_NODES`` > 1, without it ``SLURM_JOB_NUM_NODES`` or ``SLURM_NNODES`` > 1 | ``SLURM_NODEID`` | Slurm, srun(1), "OUTPUT ENVIRONMENT VARIABLES" |
| ``torchrun`` | ``GROUP_WORLD_SIZE`` > 1, without it ``WORLD_SIZE`` > ``LOCAL_WORLD_SIZE`` | ``GROUP_RANK`` | PyTorch, "torchrun (Elastic Launch)", "Environment Variables" |
| Kubernetes | in a pod (``KUBERNETES_SERVICE_HOST``): ``PET_NNODES`` > 1, ``JOB_COMPLETION_INDEX``, or ``RANK`` and ``WORLD_SIZE`` > 1 without ``LOCAL_RANK`` | ``POD_NAME``, else ``HOSTNAME`` | Kubernetes, "Indexed Job for Parallel Processing with Static Work Assignment", "Expose Pod Information to Containers Through Environment Variables"; Kubeflow Trainer, "PyTorchJob" |
| another one | ``WORLD_SIZE`` > ``LOCAL_WORLD_SIZE``, ``SLURM_JOB_NUM_NODES`` > 1 | host name | |

The order matters where one starts another. ``mpirun`` goes first: within Slurm it starts its daemons
with an ``srun`` for all nodes but its own, so ``SLURM_NODEID`` is 0 on two of them. A step that has not
all nodes of its Slurm job (``srun -N1`` in a loop) counts those that it has from 0, too: then
``torchrun`` is asked, and in the end the host. So does the step of one group of a heterogeneous job,
which sets ``SLURM_JOB_NUM_NODES_HET_GROUP_0`` and so on, while a step over all groups counts through.
Where both can tell, Slurm goes before ``torchrun``, because its number stays with the node when
``torchrun`` forms its group anew. An ``mpirun`` on each node that starts ``torchrun`` knows of one node.
"""  # noqa: E501  # a table

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

VARIABLES = (
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "JOB_COMPLETION_INDEX",
    "KUBERNETES_SERVICE_HOST",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PET_NNODES",
    "PMI_SIZE",
    "RANK",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_NUM_NODES_HET_GROUP_0",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_STEP_NUM_NODES",
    "WORLD_SIZE",
)
"""What decides whether a job has more than one node, and which this is."""

_MPI_SIZES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "MPI_LOCALNRANKS"),
)
"""Processes of the job, and those of them on this node."""


def node_id(environ: Mapping[str, str], host_name: Callable[[], str]) -> str | None:
    """What tells this node from the others of its job; `None` if there are none.

    Args:
        environ: the environment of a process of the job.
        host_name: gives the name of this machine.
    """
    for all_of_them, on_this_node in _MPI_SIZES:
        if all_of_them in environ and on_this_node in environ:
            # Started by mpirun: what Slurm or Kubernetes has set is about what started that.
            if _is_less(environ, on_this_node, all_of_them):
                return host_name()
            return _of_torchrun(environ)
    found = _of_slurm_step(environ) or _of_torchrun(environ) or _of_pod(environ, host_name)
    if found is None and _has_other_nodes(environ):
        return host_name()
    return found


def most_nodes(environ: Mapping[str, str]) -> int | None:
    """How many nodes the job has, or more, as far as its launcher says how many processes it has.

    Args:
        environ: the environment of a process of the job.
    """
    names = ("WORLD_SIZE", "GROUP_WORLD_SIZE", *(all_of_them for all_of_them, _ in _MPI_SIZES))
    counts = [_slurm_nodes(environ), *(_count(environ, name) for name in names)]
    return max((count for count in counts if count), default=None)


def _of_slurm_step(environ: Mapping[str, str]) -> str | None:
    nodes = _count(environ, "SLURM_STEP_NUM_NODES")
    nodes_of_job = _slurm_nodes(environ)
    if nodes is None:  # the batch script itself, or what it starts without srun
        if _is_of_torchrun(environ):
            return None
        nodes = nodes_of_job
    elif nodes_of_job is not None and nodes < nodes_of_job:  # another step may have the same number
        return None
    return _number(environ, "SLURM_NODEID") if nodes is not None and nodes > 1 else None


def _of_torchrun(environ: Mapping[str, str]) -> str | None:
    nodes = _count(environ, "GROUP_WORLD_SIZE")
    is_one_of_many = nodes > 1 if nodes is not None else _has_remote_ranks(environ)
    return _number(environ, "GROUP_RANK") if is_one_of_many else None


def _of_pod(environ: Mapping[str, str], host_name: Callable[[], str]) -> str | None:
    if not environ.get("KUBERNETES_SERVICE_HOST") or not _is_one_of_many_pods(environ):
        return None
    return environ.get("POD_NAME") or environ.get("HOSTNAME") or host_name()


def _is_one_of_many_pods(environ: Mapping[str, str]) -> bool:
    if "PET_NNODES" in environ:  # a number, or "least:most" of an elastic job
        return environ["PET_NNODES"].rpartition(":")[2] not in ("", "0", "1")
    if _is_of_torchrun(environ) or "LOCAL_RANK" in environ:  # these processes share a pod
        return False
    if "JOB_COMPLETION_INDEX" in environ:
        return True
    world = _count(environ, "WORLD_SIZE")
    return "RANK" in environ and world is not None and world > 1


def _has_other_nodes(environ: Mapping[str, str]) -> bool:
    """Whether the job has more nodes than this one, which nobody has numbered."""
    slurm_nodes = _slurm_nodes(environ)
    return _has_remote_ranks(environ) or (slurm_nodes is not None and slurm_nodes > 1)


def _slurm_nodes(environ: Mapping[str, str]) -> int | None:
    """Of the whole job, with all groups of a heterogeneous one."""
    of_groups = 0
    for group in itertools.count():
        nodes = _count(environ, f"SLURM_JOB_NUM_NODES_HET_GROUP_{group}")
        if nodes is None:
            break
        of_groups += nodes
    if of_groups > 0:
        return of_groups
    nodes = _count(environ, "SLURM_JOB_NUM_NODES")
    return nodes if nodes is not None else _count(environ, "SLURM_NNODES")


def _is_of_torchrun(environ: Mapping[str, str]) -> bool:
    return "GROUP_RANK" in environ


def _has_remote_ranks(environ: Mapping[str, str]) -> bool:
    return _is_less(environ, "LOCAL_WORLD_SIZE", "WORLD_SIZE")


# ---- values -------------------------------------------------------------------------------------


def _is_less(environ: Mapping[str, str], name: str, than: str) -> bool:
    """Whether one count is below another; not so where either is none."""
    count, other = _count(environ, name), _count(environ, than)
    return count is not None and other is not None and count < other


def _count(environ: Mapping[str, str], name: str) -> int | None:
    text = _number(environ, name)
    return None if text is None else int(text)


def _number(environ: Mapping[str, str], name: str) -> str | None:
    """The digits of a variable; `None` where it holds anything else."""
    text = environ.get(name, "").strip()
    return text if text.isascii() and text.isdecimal() and len(text) < 10 else None  # noqa: PLR2004
