"""Which GPUs there are, which of them are to be read, and what a run is told of them.

Both backends find them, each in its own way; what is chosen of them is decided here. An index is
the driver's own, whatever is chosen: the keys of one GPU are the same in every process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

ALL, VISIBLE, NONE = "all", "visible", "none"
WORDS = (ALL, VISIBLE, NONE)
MAX_INDEX = 63
"""Of a GPU: there is room for 64."""

Choice = str | tuple[int | str, ...]
"""The option `gpus`: one of `WORDS`, or indices and (beginnings of) UUIDs."""

_GPU_PREFIX = "GPU-"
_MIG_PREFIX = "MIG-"
_MAX_TAG_LENGTH = 500
"""What the oldest release of MLflow takes."""
_LONGEST_NAME = 100


class GpuInstance(NamedTuple):
    """A MIG device: a part of a GPU with memory of its own."""

    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    """Within its GPU, the driver's."""
    uuid: str


class Gpu(NamedTuple):
    """One GPU. Texts are empty where the driver does not tell."""

    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    """The driver's, by PCI address."""
    uuid: str
    pci_id: str
    """``domain:bus:device.function``, in hexadecimal."""
    name: str
    memory_bytes: float | None
    instances: tuple[GpuInstance, ...] = ()
    """Its MIG devices; of a selection those that are chosen."""


class LibraryAttempt(NamedTuple):
    """What became of looking for one library; for people."""

    name: str
    outcome: str
    """``2 devices``, or why there are none."""
    version: str = ""
    driver_version: str = ""


class Inventory(NamedTuple):
    """The GPUs of this machine and how they were found."""

    vendor: str | None = None
    """``NVIDIA`` or ``AMD``; `None` where there is no GPU."""
    attempts: tuple[LibraryAttempt, ...] = ()
    """What was looked for, in that order."""
    gpus: tuple[Gpu, ...] = ()
    """By their indices."""


def describe_inventory(inventory: Inventory) -> str:
    """A sentence for the log: how many GPUs there are, or what was looked for in vain."""
    if inventory.gpus:
        found = inventory.attempts[-1]
        version = f" {found.version}" if found.version else ""
        count = len(inventory.gpus)
        plural = "" if count == 1 else "s"
        return f"{count} {inventory.vendor} GPU{plural} found by {found.name}{version}."
    tried = "; ".join(f"{one.name}: {one.outcome.rstrip('.')}" for one in inventory.attempts)
    return f"No GPU is read. Looked for: {tried}."


class Selection(NamedTuple):
    """What is to be read."""

    gpus: tuple[Gpu, ...] = ()
    """By their indices, each with those of its MIG devices that are chosen."""
    remark: str = ""
    """Worth a line in the log; empty if nothing."""


# ---- choosing -----------------------------------------------------------------------------------


def select(
    choice: Choice,
    inventory: Inventory,
    environ: Mapping[str, str],
    option_name: str = "gpus",
) -> Selection:
    """The GPUs that the option `gpus` means on this machine.

    A GPU that is chosen by its index or UUID has all its MIG devices. One of those that is chosen
    by its own UUID brings its GPU along, because utilization, power and the rest are the GPU's, but
    none of its neighbours.

    Args:
        choice: the option; where it names GPUs each must be there, unless this machine has none at
            all: the same program may run on a laptop.
        inventory: what there is.
        environ: the environment, for ``visible``.
        option_name: what users set the option with, for the message.

    Raises:
        ValueError: it names a GPU that is not there, or several by one beginning of a UUID.
    """
    if choice == NONE:
        return Selection()
    if choice == ALL:
        return Selection(inventory.gpus)
    if choice == VISIBLE:
        return _in_order(_visible(inventory, environ))
    if not inventory.gpus:
        shown = ",".join(map(str, choice))
        return Selection(remark=f"{option_name} is {shown!r}, but there are no GPUs here")
    chosen = []
    for entry in choice:
        found = _find(entry, inventory.gpus)
        if len(found) != 1:
            raise ValueError(
                f"{option_name} must be {', '.join(WORDS)}, or of the GPUs that there are "
                f"({_listed(inventory.gpus)}){', each by itself' if found else ''}, got {entry!r}"
            )
        chosen += found
    return _in_order(chosen)


def _find(entry: int | str, gpus: Iterable[Gpu]) -> list[Gpu]:
    """Every GPU that an index or the beginning of a UUID may mean; of a MIG device that one."""
    if isinstance(entry, int):
        return [gpu for gpu in gpus if gpu.index == entry]
    if entry.startswith(_MIG_PREFIX):
        owned = [(gpu, instance) for gpu in gpus for instance in gpu.instances]
        whole = [(gpu, instance) for gpu, instance in owned if instance.uuid == entry]
        begun = [(gpu, instance) for gpu, instance in owned if instance.uuid.startswith(entry)]
        return [gpu._replace(instances=(instance,)) for gpu, instance in whole or begun]
    same = [gpu for gpu in gpus if gpu.uuid == entry]
    return same or [gpu for gpu in gpus if gpu.uuid.startswith(entry)]


def _listed(gpus: Iterable[Gpu]) -> str:
    known = []
    for gpu in gpus:
        known.append(" ".join(filter(None, (str(gpu.index), gpu.uuid))))
        known += [instance.uuid for instance in gpu.instances]
    return ", ".join(known)


def _in_order(chosen: Iterable[Gpu]) -> Selection:
    """Each once, with all its MIG devices that were chosen."""
    by_index: dict[int, Gpu] = {}
    for gpu in chosen:
        before = by_index.get(gpu.index, gpu)
        instances = tuple(sorted({*before.instances, *gpu.instances}))
        by_index[gpu.index] = gpu._replace(instances=instances)
    return Selection(tuple(by_index[index] for index in sorted(by_index)))


# ---- what frameworks see ------------------------------------------------------------------------


def _visible(inventory: Inventory, environ: Mapping[str, str]) -> Iterable[Gpu]:
    """What this process's environment leaves of the GPUs for programs that compute."""
    if inventory.vendor != "AMD":
        # NVIDIA_VISIBLE_DEVICES is for whoever starts a container: what it hides is not there.
        return _masked(inventory.gpus, environ.get("CUDA_VISIBLE_DEVICES"))
    seen = _masked(inventory.gpus, environ.get("ROCR_VISIBLE_DEVICES"))
    mask = environ.get("HIP_VISIBLE_DEVICES", environ.get("CUDA_VISIBLE_DEVICES"))
    # Its indices count what is left, in the order in which it was named.
    numbered = [gpu._replace(index=place) for place, gpu in enumerate(seen)]
    return [seen[gpu.index] for gpu in _masked(numbered, mask)]


def _masked(gpus: Iterable[Gpu], mask: str | None) -> list[Gpu]:
    """What a variable such as ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    As CUDA reads it: the first entry that is not one GPU ends the list, so does one of another
    kind than the first (index, ``GPU-``, ``MIG-``), and a list that names one twice leaves none.
    """
    gpus = list(gpus)
    if mask is None:
        return gpus
    seen: list[Gpu] = []
    kinds = set()
    for text in mask.split(","):
        entry = _mask_entry(text.strip())
        kinds.add(entry[:4] if isinstance(entry, str) else "")
        found = [] if entry is None or len(kinds) > 1 else _find(entry, gpus)
        if len(found) != 1:
            break
        if found[0] in seen:
            return []
        seen += found
    return seen


def _mask_entry(text: str) -> int | str | None:
    if text.startswith((_GPU_PREFIX, _MIG_PREFIX)):
        return text
    return int(text) if text.isascii() and text.isdecimal() else None


# ---- what a run is told -------------------------------------------------------------------------


def identity_tags(gpus: Iterable[Gpu], prefix: str) -> dict[str, str]:
    """The tags that say, once, which GPUs the keys of a run belong to.

    Args:
        gpus: those that are read.
        prefix: what stands before every key of the run.

    Returns:
        For each ``<prefix>gpu_<index>`` compact JSON with ``name``, ``memory_megabytes``, ``uuid``,
        ``pci_id`` and ``mig`` (UUIDs by index), without what is unknown; never longer than MLflow
        takes: then MIG devices are left out from the end.
    """
    return {f"{prefix}gpu_{gpu.index}": _identity(gpu) for gpu in gpus}


def _identity(gpu: Gpu) -> str:
    about: dict[str, object] = {
        "name": gpu.name[:_LONGEST_NAME],
        "memory_megabytes": None if gpu.memory_bytes is None else round(gpu.memory_bytes / 1e6, 1),
        "uuid": gpu.uuid,
        "pci_id": gpu.pci_id,
    }
    known = {name: value for name, value in about.items() if value not in (None, "")}
    for count in range(len(gpu.instances), -1, -1):
        mig = {str(instance.index): instance.uuid for instance in gpu.instances[:count]}
        text = json.dumps(known | ({"mig": mig} if mig else {}), separators=(",", ":"))
        if len(text) <= _MAX_TAG_LENGTH:
            return text
    return "{}"
