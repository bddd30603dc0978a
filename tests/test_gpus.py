"""Which GPUs are chosen: every way to say it, what CUDA and ROCm would do, what a run is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysmetrics_native import settings
from sysmetrics_native.gpus import Gpu, GpuInstance, Inventory, Selection, identity_tags, select

A, B, C, D = (
    *("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6"),
    *("GPU-c0ffee00-d72c-4106-c12f-20bd9faed9f6", "GPU-d0000000-d72c-4106-c12f-20bd9faed9f6"),
)
MIG_X, MIG_Y, MIG_Z = (
    *("MIG-1c8f4d00-0000-5000-8000-000000000001", "MIG-1c8f5d00-0000-5000-8000-000000000002"),
    "MIG-77777777-0000-5000-8000-000000000003",
)


def gpu(index: int, uuid: str, *instances: GpuInstance) -> Gpu:
    return Gpu(index, uuid, f"00000000:{index:02X}:00.0", "Some GPU", 80e9, instances)


FOUR = Inventory("NVIDIA", (), (gpu(0, A), gpu(1, B), gpu(2, C), gpu(3, D)))
MIG = Inventory(
    "NVIDIA",
    (),
    (
        gpu(0, A, GpuInstance(0, MIG_X), GpuInstance(2, MIG_Y)),
        gpu(1, C, GpuInstance(0, MIG_Z)),
        gpu(2, D),
    ),
)
AMD = Inventory("AMD", (), (gpu(0, "GPU-aa"), gpu(1, "GPU-ab"), gpu(2, "GPU-cc"), gpu(3, "")))
NOBODY = Inventory()


def indices(selection: Selection) -> list[int]:
    return [one.index for one in selection.gpus]


def instances(selection: Selection) -> dict[int, list[int]]:
    return {one.index: [part.index for part in one.instances] for one in selection.gpus}


# ---- the option ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ("all", [0, 1, 2, 3]),
        ("visible", [0, 1, 2, 3]),
        ("none", []),
        ((0,), [0]),
        ((3, 1), [1, 3]),
        ((A,), [0]),
        (("GPU-c",), [2]),
        (("GPU-8932f", 3), [0, 3]),
        ((0, A), [0]),
    ],
)
def test_what_is_chosen(choice, chosen):
    assert indices(select(choice, FOUR, {})) == chosen


@pytest.mark.parametrize("choice", ["all", "none", (1,), ("GPU-c",)])
def test_a_mask_is_for_visible_alone(choice):
    masks = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    assert select(choice, FOUR, masks) == select(choice, FOUR, {})


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ("all", {0: [0, 2], 1: [0], 2: []}),
        ((0,), {0: [0, 2]}),
        ((A, 2), {0: [0, 2], 2: []}),
        ((MIG_Y,), {0: [2]}),
        ((MIG_Y, MIG_Z), {0: [2], 1: [0]}),
        ((MIG_Y, MIG_X), {0: [0, 2]}),
        (("MIG-7",), {1: [0]}),
        ((MIG_X, 0), {0: [0, 2]}),
    ],
)
def test_a_mig_device_brings_its_gpu_and_none_of_its_neighbours(choice, chosen):
    assert instances(select(choice, MIG, {})) == chosen


def test_an_old_mig_name_is_whole_although_it_begins_a_longer_one():
    names = ["MIG-GPU-1/1/0", "MIG-GPU-1/1/00"]
    parts = tuple(GpuInstance(index, name) for index, name in enumerate(names))
    old = Inventory("NVIDIA", (), (gpu(0, A, *parts),))
    assert instances(select((names[0],), old, {})) == {0: [0]}


WORDS = "all, visible, none, or of the GPUs that there are"
IN_FOUR = f"{WORDS} (0 {A}, 1 {B}, 2 {C}, 3 {D})"
IN_MIG = f"{WORDS} (0 {A}, {MIG_X}, {MIG_Y}, 1 {C}, {MIG_Z}, 2 {D})"


@pytest.mark.parametrize(
    ("choice", "inventory", "message"),
    [
        ((4,), FOUR, f"{IN_FOUR}, got 4"),
        ((0, "GPU-1"), FOUR, f"{IN_FOUR}, got 'GPU-1'"),
        (("GPU-8932",), FOUR, f"{IN_FOUR}, each by itself, got 'GPU-8932'"),
        (("MIG-1c8f",), MIG, f"{IN_MIG}, each by itself, got 'MIG-1c8f'"),
    ],
)
def test_what_is_not_there_is_refused(choice, inventory, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # all of the message is compared
        select(choice, inventory, {}, "SYSMETRICS_NATIVE_GPUS")
    assert str(caught.value) == f"SYSMETRICS_NATIVE_GPUS must be {message}"


def test_where_there_is_no_gpu_at_all_a_list_is_a_remark():
    chosen = select((0, "GPU-8932"), NOBODY, {})
    assert chosen == Selection(remark="gpus is '0,GPU-8932', but there are no GPUs here")
    for choice in ("all", "visible", "none"):
        assert select(choice, NOBODY, {"CUDA_VISIBLE_DEVICES": "0"}) == Selection()


# ---- what CUDA sees -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "chosen"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        ("2,0", [0, 2]),
        (" 2 , 0 ", [0, 2]),
        ("0,2,-1,1", [0, 2]),
        ("0,4,1", [0]),
        ("4", []),
        ("0,,1", [0]),
        ("0,x,1", [0]),
        ("0,0", []),
        ("1,2,1", []),
        ("NoDevFiles", []),
        (A, [0]),
        (f"{C},{A}", [0, 2]),
        ("GPU-c,GPU-8932a", [1, 2]),
        ("GPU-8932", []),
        ("GPU-c,GPU-8932,GPU-d", [2]),
        ("GPU-c,GPU-c0ffee", []),
        ("GPU-x", []),
        ("0,GPU-c", [0]),
        ("GPU-c,0", [2]),
        ("gpu-c", []),
        ("²", []),
    ],
)
def test_the_mask_of_cuda(mask, chosen):
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    assert indices(select("visible", FOUR, environ)) == chosen


@pytest.mark.parametrize(
    ("mask", "chosen"),
    [
        (MIG_Y, {0: [2]}),
        (f"{MIG_Y},{MIG_X}", {0: [0, 2]}),
        (f"MIG-7,{MIG_X}", {0: [0], 1: [0]}),
        ("MIG-1c8f", {}),
        (f"{MIG_X},MIG-1c8f4", {}),
        (f"{MIG_X},2", {0: [0]}),
        ("0", {0: [0, 2]}),
        ("GPU-c", {1: [0]}),
    ],
)
def test_the_mask_of_cuda_with_mig_devices(mask, chosen):
    assert instances(select("visible", MIG, {"CUDA_VISIBLE_DEVICES": mask})) == chosen


@pytest.mark.parametrize("value", ["void", "none", "all", "", "0"])
def test_what_a_container_was_given_is_no_mask(value):
    environ = {"NVIDIA_VISIBLE_DEVICES": value}
    assert indices(select("visible", FOUR, environ)) == [0, 1, 2, 3]


# ---- what ROCm sees -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rocr", "hip", "cuda", "chosen"),
    [
        (None, None, None, [0, 1, 2, 3]),
        ("1,3", None, None, [1, 3]),
        ("1,3", "1", None, [3]),
        ("3,1", "0", None, [3]),
        ("1,3", "1,2,0", None, [3]),
        ("1,3", "", None, []),
        ("", "0", None, []),
        (None, "2", None, [2]),
        (None, None, "2", [2]),
        (None, "1", "2", [1]),
        ("2,3", None, "1", [3]),
        (None, "-1", "2", []),
        ("GPU-ab,GPU-cc", None, None, [1, 2]),
        ("GPU-ab,GPU-cc", "GPU-cc", None, [2]),
        ("GPU-a", None, None, []),
        ("GPU-ab", "0,1", None, [1]),
    ],
)
def test_the_masks_of_rocm(rocr, hip, cuda, chosen):
    masks = {
        "ROCR_VISIBLE_DEVICES": rocr,
        "HIP_VISIBLE_DEVICES": hip,
        "CUDA_VISIBLE_DEVICES": cuda,
    }
    environ = {name: value for name, value in masks.items() if value is not None}
    assert indices(select("visible", AMD, environ)) == chosen


def test_cuda_looks_at_no_mask_of_rocm():
    environ = {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    assert indices(select("visible", FOUR, environ)) == [0, 1, 2, 3]


# ---- whatever is said ---------------------------------------------------------------------------

ENTRIES = st.one_of(
    st.integers(-2, 6).map(str),
    st.sampled_from(["", " ", "x", "GPU-", "MIG-", "GPU-8932", "MIG-1c8f", *(A, B, C, D)]),
    st.sampled_from([MIG_X, MIG_Y, MIG_Z, MIG_X[:9], A[:12]]),
    st.text(max_size=5),
)


@given(entries=st.lists(ENTRIES, max_size=6), inventory=st.sampled_from([FOUR, MIG, AMD, NOBODY]))
def test_a_mask_chooses_some_of_what_there_is_whatever_it_says(entries, inventory):
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    for name in names:
        chosen = select("visible", inventory, {name: ",".join(entries)}).gpus
        assert list(chosen) == sorted(chosen)
        whole = {one.index: one for one in inventory.gpus}
        for one in chosen:
            assert one._replace(instances=()) == whole[one.index]._replace(instances=())
            assert set(one.instances) <= set(whole[one.index].instances)


@given(entries=st.lists(ENTRIES, max_size=6))
def test_a_longer_mask_never_hides_an_entry_before_it_but_by_naming_it_twice(entries):
    shorter = indices(select("visible", FOUR, {"CUDA_VISIBLE_DEVICES": ",".join(entries)}))
    more = [*entries, "3"]
    longer = indices(select("visible", FOUR, {"CUDA_VISIBLE_DEVICES": ",".join(more)}))
    assert longer in (shorter, sorted({*shorter, 3}), [])


@given(entries=st.lists(ENTRIES, min_size=1, max_size=6))
def test_a_list_is_taken_whole_or_refused(entries):
    choice: Any = ()
    chosen, message = Selection(), ""
    try:
        choice = settings.option("gpus", ",".join(entries))
        chosen = select(choice, MIG, {})
    except ValueError as error:
        choice, message = (), str(error)
    assert message == "" or message.startswith("gpus must be ")
    for entry in choice:
        assert any(
            entry == one.index
            or (isinstance(entry, str) and one.uuid.startswith(entry))
            or any(isinstance(entry, str) and p.uuid.startswith(entry) for p in one.instances)
            for one in chosen.gpus
        )


# ---- tags ---------------------------------------------------------------------------------------


def test_a_tag_says_which_gpu_it_is():
    tags = identity_tags(MIG.gpus[:1], "system/node/")
    assert list(tags) == ["system/node/gpu_0"]
    assert tags["system/node/gpu_0"] == (
        f'{{"name":"Some GPU","memory_megabytes":80000.0,"uuid":"{A}",'
        f'"pci_id":"00000000:00:00.0","mig":{{"0":"{MIG_X}","2":"{MIG_Y}"}}}}'
    )


def test_what_is_not_known_is_left_out():
    assert identity_tags([Gpu(5, "", "", "", None)], "system/") == {"system/gpu_5": "{}"}
    assert identity_tags([], "system/") == {}


@given(
    name=st.text(max_size=120),
    uuid=st.text(alphabet="abcdef-/0123456789", max_size=96),
    parts=st.integers(0, 8),
)
def test_a_tag_is_never_longer_than_mlflow_takes(name: str, uuid: str, parts: int) -> None:
    some = tuple(GpuInstance(index, f"MIG-{index}{uuid}") for index in range(parts))
    one = Gpu(0, f"GPU-{uuid}", "00000000:00:00.0", name, 85899345920.0, some)
    (text,) = identity_tags([one], "system/").values()
    assert len(text) <= 500
    about: dict[str, Any] = json.loads(text)
    assert about.get("uuid", one.uuid) == one.uuid
    assert name.startswith(about.get("name", ""))
    assert all(some[int(index)].uuid == told for index, told in about.get("mig", {}).items())


def test_seven_mig_devices_have_room():
    uuids = [f"MIG-{index}c8f4d00-0000-5000-8000-000000000001" for index in range(7)]
    parts = tuple(GpuInstance(index, uuid) for index, uuid in enumerate(uuids))
    one = Gpu(0, A, "00000000:07:00.0", "NVIDIA A100-SXM4-80GB", 85899345920.0, parts)
    (text,) = identity_tags([one], "system/").values()
    assert list(json.loads(text)["mig"].values()) == uuids
