"""Our declarations of AMD's libraries (csrc/gpu/rocm_smi_abi.h, amd_smi_abi.h) against others'.

librocm_smi64 comes with its header in Debian (scripts/fetch-rocm-smi). libamd_smi does not come
without ROCm, but two bindings for Python say how its structures lie: pyrsmi's, which is at hand,
and AMD's own, whose numbers are written down here.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fake_gpus import compiler

ROOT = Path(__file__).parent.parent
GPU = ROOT / "csrc" / "gpu"
ROCM_SMI = (GPU / "rocm_smi_abi.h").read_text(encoding="utf-8")
AMD_SMI = (GPU / "amd_smi_abi.h").read_text(encoding="utf-8")

# ---- our headers --------------------------------------------------------------------------------


class Member(NamedTuple):
    structure: str
    type: str
    name: str
    length: str
    """"" or "[16]"."""


def without_comments(header: str) -> str:
    return re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)


def constants(header: str) -> list[str]:
    return re.findall(r"^ +(SMN_\w+) =", without_comments(header), re.MULTILINE)


def members(header: str) -> list[Member]:
    """Those of structures; the union is a buffer, and nobody's but ours."""
    found = []
    for body, structure in re.findall(
        r"^typedef struct \{\n(.*?)^\} (\w+);", without_comments(header), re.DOTALL | re.MULTILINE
    ):
        for line in filter(str.strip, body.splitlines()):
            match = re.fullmatch(r" +([\w ]*\w \*?)(\w+)(\[[^]]+\])?; *", line)
            assert match is not None, f"not understood: {line!r}"
            found.append(Member(structure, match[1].strip(), match[2], match[3] or ""))
    return found


def functions(header: str) -> list[tuple[str, str]]:
    return re.findall(r"ADD\((\w+),[\s\\]*\(([^)]*)\)\)", without_comments(header))


# ---- librocm_smi64 ------------------------------------------------------------------------------


@functools.cache
def rocm_smi_root() -> Path:
    """The folder in which Debian's packages of librocm_smi64 are unpacked, or "/"."""
    for root in (ROOT / "build" / "rocm-smi", Path("/")):
        if (root / "usr/include/rocm_smi/rocm_smi.h").exists():
            return root
    reason = "there is no rocm_smi.h: run scripts/fetch-rocm-smi"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def their_types(header: str) -> dict[str, str]:
    """Our names and theirs: the list of clocks has the one form or the other."""
    is_newer = "has_deep_sleep" in header
    return {
        "smn_rsmi_version": "rsmi_version_t",
        "smn_rsmi_error_count": "rsmi_error_count_t",
        "smn_rsmi_frequencies_6" if is_newer else "smn_rsmi_frequencies": "rsmi_frequencies_t",
    }


def about_rocm_smi(ours: str, theirs: str) -> str:
    """A program in C that states what ours says of theirs, and compiles only if all is true."""
    types = their_types(theirs)
    lines = [
        "#include <stddef.h>",
        "#include <rocm_smi/rocm_smi.h>",
        '#include "rocm_smi_abi.h"',
        '_Static_assert(__builtin_types_compatible_p(smn_rsmi_status, rsmi_status_t), "<status>");',
        # From here on, what a list of functions is made of are their types.
        *(f"#define {mine} {other}" for mine, other in types.items()),
        "#define smn_rsmi_frequencies rsmi_frequencies_t",
    ]
    lines += [
        f'_Static_assert((long long){name} == (long long){name.removeprefix("SMN_")}, "<{name}>");'
        for name in constants(ours)
        if name != "SMN_RSMI_MAX_NUM_FREQUENCIES" or "smn_rsmi_frequencies" in types
    ]
    lines += [
        f"__typeof__(rsmi_init(0)) (*const check_{name})({arguments}) = {name}; /* <{name}> */"
        for name, arguments in functions(ours)
        if re.search(rf"\b{name}\(", theirs)
    ]
    # Sizes and places last, where our names are ours again.
    lines += [f"#undef {name}" for name in {*types, "smn_rsmi_frequencies"}]
    for mine, other in types.items():
        relation = "<=" if mine == "smn_rsmi_error_count" and "deferred" in theirs else "=="
        lines.append(f'_Static_assert(sizeof({mine}) {relation} sizeof({other}), "<{mine}>");')
    for structure, kind, name, length in members(ours):
        if structure in types:
            other = types[structure]
            lines.append(
                f"_Static_assert(offsetof({structure}, {name}) == offsetof({other}, {name}) &&"
                f" __builtin_types_compatible_p({kind}{length},"
                f' __typeof__((({other} *)0)->{name})), "<{structure}.{name}>");'
            )
    return "\n".join(lines)


Complain = Callable[[str], str]


@pytest.fixture
def complaints(tmp_path: Path) -> Complain:
    """What the compiler says about a header in the place of ours, if it refuses it."""
    folder = rocm_smi_root() / "usr/include"
    theirs = without_comments((folder / "rocm_smi/rocm_smi.h").read_text(encoding="utf-8"))
    version = subprocess.run([*compiler(), "--version"], capture_output=True, check=True).stdout
    all_errors = "-ferror-limit=0" if b"clang" in version else "-fmax-errors=0"
    flags = ["-std=gnu11", "-Werror=incompatible-pointer-types", all_errors, "-I.", "-c"]

    def compile_with(header: str) -> str:
        (tmp_path / "rocm_smi_abi.h").write_text(header, encoding="utf-8")
        (tmp_path / "statements.c").write_text(about_rocm_smi(header, theirs), encoding="utf-8")
        outcome = subprocess.run(
            [*compiler(), *flags, "-isystem", str(folder), "-o", "statements.o", "statements.c"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return outcome.stderr if outcome.returncode != 0 else ""

    return compile_with


def test_all_declarations_of_rocm_smi_are_understood() -> None:
    lines = re.findall(r"^ +SMN_RSMI_\w+\b", ROCM_SMI, re.MULTILINE)
    assert len(constants(ROCM_SMI)) == len(lines) > 15
    assert len(functions(ROCM_SMI)) == len(re.findall(r"ADD\(rsmi_", ROCM_SMI)) == 19
    declarations = re.findall(
        r"^typedef struct \{.*?^\} (\w+);", ROCM_SMI, re.DOTALL | re.MULTILINE
    )
    known = {*their_types(""), *their_types("has_deep_sleep")}
    assert set(declarations) == known == {member.structure for member in members(ROCM_SMI)}


def test_our_declarations_of_rocm_smi_are_theirs(complaints: Complain) -> None:
    assert complaints(ROCM_SMI) == ""


def test_all_that_we_call_is_in_their_header() -> None:
    header = (rocm_smi_root() / "usr/include/rocm_smi/rocm_smi.h").read_text(encoding="utf-8")
    missing = [name for name, _ in functions(ROCM_SMI) if not re.search(rf"\b{name}\(", header)]
    assert set(missing) <= {"rsmi_dev_power_get"}


def test_each_wrong_constant_of_rocm_smi_is_noticed(complaints: Complain) -> None:
    errors = complaints(re.sub(r"(SMN_RSMI_\w+ = )(\w+)", r"\1 1000 + \2", ROCM_SMI))
    assert [name for name in constants(ROCM_SMI) if f"<{name}>" not in errors] == []


@pytest.mark.parametrize("which", range(4))
def test_each_wrong_argument_of_rocm_smi_is_noticed(which: int, complaints: Complain) -> None:
    def with_wrong(match: re.Match[str]) -> str:
        arguments = match[2].split(", ")
        if which < len(arguments) and match[2] != "void":
            arguments[which] = "short *" if arguments[which].endswith("*") else "double"
        return match[1] + ", ".join(arguments)

    changed = re.sub(r"(ADD\(rsmi\w+,[\s\\]*\()([^)]*)", with_wrong, ROCM_SMI)
    pairs = zip(functions(ROCM_SMI), functions(changed), strict=True)
    expected = {ours[0] for ours, other in pairs if ours != other} - {"rsmi_dev_power_get"}
    errors = complaints(changed)
    assert [name for name in expected if f"<{name}>" not in errors] == []
    assert expected


@pytest.mark.parametrize(
    ("declaration", "change"),
    [
        ("typedef unsigned int smn_rsmi_status;", "typedef int smn_rsmi_status;"),
        ("    uint32_t major;", "    uint64_t major;"),
        ("    uint32_t patch;", "    uint32_t added;\n    uint32_t patch;"),
        ("    const char *build;", "    char *build;"),
        ("    uint32_t num_supported;\n    uint32_t current; /*",
         "    uint32_t current;\n    uint32_t num_supported; /*"),
        ("    uint64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES];",
         "    uint64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES + 2];"),
        ("    uint64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES];",
         "    int64_t frequency[SMN_RSMI_MAX_NUM_FREQUENCIES];"),
        ("    uint64_t uncorrectable_err;", "    uint32_t uncorrectable_err;"),
        ("    uint64_t correctable_err;", ""),
        ("(uint32_t, uint64_t, smn_rsmi_error_count *)",
         "(uint32_t, unsigned int, smn_rsmi_error_count *)"),
        ("ADD(rsmi_init, (uint64_t))", "ADD(rsmi_init, (unsigned int))"),
        ("ADD(rsmi_shut_down, (void))", "ADD(rsmi_shut_down, (int))"),
    ],
)  # fmt: skip
def test_each_wrong_type_of_rocm_smi_is_noticed(
    declaration: str, change: str, complaints: Complain
) -> None:
    header = (rocm_smi_root() / "usr/include/rocm_smi/rocm_smi.h").read_text(encoding="utf-8")
    if "frequency" in declaration and "has_deep_sleep" in header:
        pytest.skip("this header has the other list of clocks")
    assert ROCM_SMI.count(declaration) >= 1
    assert complaints(ROCM_SMI.replace(declaration, change, 1)) != ""


# ---- libamd_smi ---------------------------------------------------------------------------------

AMD_SMI_LAYOUTS: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "smn_amdsmi_version_23": (
        24,
        {"year": (0, 4), "major": (4, 4), "minor": (8, 4), "release": (12, 4),
         "build": (16, 8)},
    ),
    "smn_amdsmi_version_26": (
        24,
        {"major": (0, 4), "minor": (4, 4), "release": (8, 4), "build": (16, 8)},
    ),
    "smn_amdsmi_engine_usage": (
        64,
        {"gfx_activity": (0, 4), "umc_activity": (4, 4), "mm_activity": (8, 4)},
    ),
    "smn_amdsmi_power_info_23": (
        68,
        {"current_socket_power": (0, 4), "average_socket_power": (4, 4), "gfx_voltage": (8, 4),
         "soc_voltage": (12, 4), "mem_voltage": (16, 4), "power_limit": (20, 4)},
    ),
    "smn_amdsmi_power_info_25": (
        40,
        {"socket_power": (0, 8), "current_socket_power": (8, 4),
         "average_socket_power": (12, 4), "gfx_voltage": (16, 4), "soc_voltage": (20, 4),
         "mem_voltage": (24, 4), "power_limit": (28, 4)},
    ),
    "smn_amdsmi_power_info_26": (
        192,
        {"socket_power": (0, 8), "current_socket_power": (8, 4),
         "average_socket_power": (12, 4), "gfx_voltage": (16, 8), "soc_voltage": (24, 8),
         "mem_voltage": (32, 8), "power_limit": (40, 4)},
    ),
    "smn_amdsmi_power_cap_info": (
        64,
        {"power_cap": (0, 8), "default_power_cap": (8, 8), "dpm_cap": (16, 8),
         "min_power_cap": (24, 8), "max_power_cap": (32, 8)},
    ),
    "smn_amdsmi_clk_info": (
        32,
        {"clk": (0, 4), "min_clk": (4, 4), "max_clk": (8, 4), "clk_locked": (12, 1),
         "clk_deep_sleep": (13, 1)},
    ),
    "smn_amdsmi_error_count": (
        64,
        {"correctable_count": (0, 8), "uncorrectable_count": (8, 8), "deferred_count": (16, 8)},
    ),
    "smn_amdsmi_asic_info_23": (
        256,
        {"market_name": (0, 64), "vendor_id": (64, 4), "vendor_name": (68, 64),
         "subvendor_id": (132, 4), "device_id": (136, 8), "rev_id": (144, 4),
         "asic_serial": (148, 32), "oam_id": (180, 2)},
    ),
    "smn_amdsmi_asic_info_24": (
        456,
        {"market_name": (0, 256), "vendor_id": (256, 4), "vendor_name": (260, 64),
         "subvendor_id": (324, 4), "device_id": (328, 8), "rev_id": (336, 4),
         "asic_serial": (340, 32), "oam_id": (372, 4)},
    ),
    "smn_amdsmi_asic_info_25": (
        896,
        {"market_name": (0, 256), "vendor_id": (256, 4), "vendor_name": (260, 256),
         "subvendor_id": (516, 4), "device_id": (520, 8), "rev_id": (528, 4),
         "asic_serial": (532, 256), "oam_id": (788, 4), "num_of_compute_units": (792, 4),
         "target_graphics_version": (800, 8), "subsystem_id": (808, 4)},
    ),
    "smn_amdsmi_driver_info_23": (
        192,
        {"driver_name": (0, 64), "driver_version": (64, 64), "driver_date": (128, 64)},
    ),
    "smn_amdsmi_driver_info_24": (
        192,
        {"driver_version": (0, 64), "driver_date": (64, 64), "driver_name": (128, 64)},
    ),
    "smn_amdsmi_driver_info_25": (
        768,
        {"driver_version": (0, 256), "driver_date": (256, 256), "driver_name": (512, 256)},
    ),
}  # fmt: skip
"""The size of each structure, and place and size of what is in it, in bytes.

Of PyPI's amdsmi: 23 is its 6.0.2, 24 its 6.1.2 to 6.3.3, 25 its 6.4.4, 26 its 7.0.2. Of structures
that only grew, the newest.
"""

Layouts = dict[str, tuple[int, dict[str, tuple[int, int]]]]


def layouts(header: str, folder: Path) -> Layouts:
    """Sizes and places as the compiler has them, without what is reserved."""
    lines = ['#include "amd_smi_abi.h"', "#include <stddef.h>", "#include <stdio.h>"]
    lines += ["int main(void)", "{", '    printf("{");']
    of_all = members(header)
    for structure in dict.fromkeys(member.structure for member in of_all):
        lines.append(f'    printf("\\"{structure}\\": (%zu, {{", sizeof({structure}));')
        lines += [
            f'    printf("\\"{name}\\": (%zu, %zu), ", offsetof({structure}, {name}),'
            f" sizeof((({structure} *)0)->{name}));"
            for owner, _, name, _ in of_all
            if owner == structure and name != "reserved"
        ]
        lines.append('    printf("}), ");')
    lines += ['    printf("}\\n");', "}"]
    (folder / "amd_smi_abi.h").write_text(header, encoding="utf-8")
    (folder / "layouts.c").write_text("\n".join(lines), encoding="utf-8")
    program = folder / "layouts"
    subprocess.run([*compiler(), "-std=c11", "-o", program, folder / "layouts.c"], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    result: Layouts = ast.literal_eval(answer)
    return result


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    return layouts(AMD_SMI, tmp_path_factory.mktemp("amd_smi"))


@pytest.fixture(scope="module")
def rocml() -> Any:
    return pytest.importorskip("pyrsmi.rocml")


def test_our_structures_of_amd_smi_are_those_of_its_releases(ours: Layouts) -> None:
    assert ours == AMD_SMI_LAYOUTS


def test_there_is_room_for_more_than_any_release_writes(ours: Layouts) -> None:
    (most,) = map(int, re.findall(r"SMN_AMDSMI_MOST_BYTES = (\d+)", AMD_SMI))
    assert most >= 8 * max(size for size, _ in ours.values())


def layout(structure: type[ctypes.Structure]) -> tuple[int, dict[str, tuple[int, int]]]:
    names = [field[0] for field in structure._fields_ if field[0] != "reserved"]
    fields = {name: getattr(structure, name) for name in names}
    return ctypes.sizeof(structure), {
        name: (field.offset, field.size) for name, field in fields.items()
    }


@pytest.mark.parametrize(
    ("structure", "theirs"),
    [
        ("smn_amdsmi_engine_usage", "amdsmi_engine_usage_t"),
        ("smn_amdsmi_power_info_26", "amdsmi_power_info_t"),
        ("smn_amdsmi_asic_info_25", "amdsmi_asic_info_t"),
    ],
)
def test_our_structures_of_version_26_are_those_of_pyrsmi(
    structure: str, theirs: str, ours: Layouts, rocml: Any
) -> None:
    assert ours[structure] == layout(getattr(rocml, theirs))


def test_our_constants_of_amd_smi_are_those_of_pyrsmi(rocml: Any) -> None:
    values = dict(re.findall(r"\b(SMN_AMDSMI_\w+) = (\w+)", without_comments(AMD_SMI)))
    theirs: dict[str, int] = {}
    for enumeration in ("status", "init_flags", "memory_type", "processor_type"):
        theirs |= vars(getattr(rocml, f"amdsmi_{enumeration}_t"))
    shared = [name for name in values if name.removeprefix("SMN_") in theirs]
    assert len(shared) >= 17
    for name in shared:
        assert int(values[name], 0) == theirs[name.removeprefix("SMN_")], name


def test_our_order_in_an_address_is_that_of_pyrsmi(rocml: Any) -> None:
    bdf = rocml.amdsmi_bdf_t()
    fields = bdf.fields
    fields.domain_number, fields.bus_number, fields.device_number, fields.function_number = (
        1, 0xC3, 0x1F, 7,
    )  # fmt: skip
    assert bdf.as_uint == 0x1C3FF  # csrc/gpu/amd.h
    assert ctypes.sizeof(bdf) == 8


@pytest.mark.parametrize(
    ("declaration", "change"),
    [
        ("    uint32_t year;", "    uint64_t year;"),
        ("    uint32_t mm_activity;", "    uint32_t other;\n    uint32_t mm_activity;"),
        ("    uint64_t gfx_voltage;", "    uint32_t gfx_voltage;"),
        ("    uint64_t socket_power;", ""),
        ("    uint64_t dpm_cap;", ""),
        ("    uint8_t clk_locked;", "    uint32_t clk_locked;"),
        ("    char asic_serial[256];", "    char asic_serial[255];"),
        ("    char vendor_name[64];", "    char vendor_name[256];"),
        ("    uint64_t reserved[18];", "    uint64_t reserved[17];"),
        ("    char driver_date[256];", "    char driver_date[64];"),
    ],
)
def test_each_wrong_type_of_amd_smi_is_noticed(
    declaration: str, change: str, tmp_path: Path
) -> None:
    assert AMD_SMI.count(declaration) >= 1
    assert layouts(AMD_SMI.replace(declaration, change, 1), tmp_path) != AMD_SMI_LAYOUTS
