"""Our declarations of NVML's interface (csrc/gpu/nvml_abi.h) against NVIDIA's own header.

A program in C is made from ours that states everything about the other, and does not compile if
any of it is untrue. NVIDIA's header comes with the package nvidia-nvml-dev.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fake_gpus import compiler

OURS = (Path(__file__).parent.parent / "csrc/gpu/nvml_abi.h").read_text(encoding="utf-8")

TYPES = {
    "smn_nvml_device": "nvmlDevice_t",
    "smn_nvml_gpm_sample": "nvmlGpmSample_t",
    "smn_nvml_utilization": "nvmlUtilization_t",
    "smn_nvml_memory": "nvmlMemory_t",
    "smn_nvml_pci_info": "nvmlPciInfo_t",
    "smn_nvml_value": "nvmlValue_t",
    "smn_nvml_field_value": "nvmlFieldValue_t",
    "smn_nvml_gpm_metric": "nvmlGpmMetric_t",
    "smn_nvml_gpm_metrics_get": "nvmlGpmMetricsGet_t",
    "smn_nvml_gpm_support": "nvmlGpmSupport_t",
}
ENUMERATIONS = {"nvmlReturn": "nvmlReturn_t", "valueType": "nvmlValueType_t"}
"""Members that are enumerations there and `int` here."""

PRELUDE = """
#include <stddef.h>
#include <nvml.h>
#include "nvml_abi.h"
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define IS(type, other) __builtin_types_compatible_p(type, other)
"""


# ---- our header ---------------------------------------------------------------------------------


class Member(NamedTuple):
    structure: str
    type: str
    name: str
    """Of a structure without a name: OUTER.INNER."""
    length: str
    """"", "[16]", "[]"."""


class Function(NamedTuple):
    name: str
    arguments: str


def without_comments(header: str) -> str:
    return re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)


def constants(header: str) -> list[str]:
    return re.findall(r"\b(SMN_NVML_\w+) =", without_comments(header))


def type_names(header: str) -> list[str]:
    return re.findall(r"^(?:typedef void \*|\} )(\w+);", without_comments(header), re.MULTILINE)


def members(header: str) -> Iterator[Member]:
    blocks = re.findall(
        r"^typedef (?:struct|union) \{\n(.*?)^\} (\w+);",
        without_comments(header),
        re.DOTALL | re.MULTILINE,
    )
    for body, structure in blocks:
        outer = ""
        for line in body.splitlines():
            if re.fullmatch(r" +struct \{", line):
                (outer,) = re.findall(r"^    \} (\w+);", body, re.MULTILINE)
            elif re.fullmatch(r"    \} \w+;", line):
                outer = ""
            elif line.strip():
                match = re.fullmatch(r" +([\w ]*\w \*?)(\w+)(\[\d*\])?; *", line)
                assert match is not None, f"not understood: {line!r}"
                name = f"{outer}.{match[2]}" if outer else match[2]
                yield Member(structure, match[1].strip(), name, match[3] or "")


def functions(header: str) -> list[Function]:
    found = re.findall(r"ADD\((\w+),[\s\\]*\(([^)]*)\)\)", without_comments(header))
    return [Function(*pair) for pair in found]


# ---- the statements about theirs ----------------------------------------------------------------


def their_type(ours: str) -> str:
    return re.sub(r"smn_nvml_\w+", lambda match: TYPES[match[0]], ours)


def their_constant(ours: str) -> str:
    if (reason := ours.removeprefix("SMN_NVML_CLOCKS_")) != ours:
        return "nvmlClocksThrottleReason" + "".join(map(str.capitalize, reason.split("_")))
    return ours.removeprefix("SMN_")


def about_constant(name: str) -> str:
    return f'_Static_assert((long long){name} == (long long){their_constant(name)}, "<{name}>");'


def about_type(name: str) -> str:
    if name == "smn_nvml_gpm_metrics_get":  # theirs goes on with an array, ours ends before it
        theirs = "offsetof(nvmlGpmMetricsGet_t, metrics)"
    else:
        theirs = f"sizeof({TYPES[name]})"
    return f'_Static_assert(sizeof({name}) == {theirs}, "<{name}>");'


def about_member(member: Member) -> str:
    structure, kind, name, length = member
    theirs, which = TYPES[structure], f'"<{structure}.{name}>"'
    same_place = f"offsetof({structure}, {name}) == offsetof({theirs}, {name})"
    if length == "[]":
        element = f"__typeof__((({theirs} *)0)->{name}[0])"
        return f"_Static_assert({same_place} && IS({element}, {their_type(kind)}), {which});"
    real_kind = ENUMERATIONS[name] if name in ENUMERATIONS and kind == "int" else their_type(kind)
    same_type = f"IS(__typeof__((({theirs} *)0)->{name}), {real_kind}{length})"
    same_size = f"sizeof((({structure} *)0)->{name}) == sizeof((({theirs} *)0)->{name})"
    return f"_Static_assert({same_place} && {same_type} && {same_size}, {which});"


def about_function(number: int, function: Function) -> str:
    name, arguments = function
    statements = [
        f"nvmlReturn_t (*const check_{number})({their_type(arguments)}) = {name}; /* <{name}> */"
    ]
    base = re.sub(r"_v\d+$", "", name)
    statements.append(  # what a program calls that is compiled with the header as it is
        f'_Static_assert(__builtin_strcmp(TEXT({base}), "{name}") == 0, "<{name}>");'
    )
    return "\n".join(statements)


def statements(header: str) -> str:
    return "\n".join(
        [
            PRELUDE,
            '_Static_assert(sizeof(int) == sizeof(nvmlReturn_t), "<result>");',
            *map(about_constant, constants(header)),
            *map(about_type, TYPES),
            *map(about_member, members(header)),
            *(about_function(*pair) for pair in enumerate(functions(header))),
        ]
    )


# ---- compiling them -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def their_folder() -> Path:
    """Where nvml.h is."""
    files = importlib.metadata.files("nvidia-nvml-dev") or []
    (header,) = (file for file in files if file.name == "nvml.h")
    return Path(str(header.locate())).parent


Compile = Callable[[str], str]


@pytest.fixture
def complaints(their_folder: Path, tmp_path: Path) -> Compile:
    """What the compiler says about a header in the place of ours, if it refuses it."""
    version = subprocess.run([*compiler(), "--version"], capture_output=True, check=True).stdout
    all_errors = "-ferror-limit=0" if b"clang" in version else "-fmax-errors=0"

    def compile_with(header: str) -> str:
        (tmp_path / "nvml_abi.h").write_text(header, encoding="utf-8")
        (tmp_path / "statements.c").write_text(statements(header), encoding="utf-8")
        flags = ["-std=gnu11", "-Werror=incompatible-pointer-types", "-Wno-deprecated-declarations"]
        flags += [all_errors, "-I.", "-isystem", str(their_folder)]
        outcome = subprocess.run(
            [*compiler(), *flags, "-c", "-o", "statements.o", "statements.c"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return outcome.stderr if outcome.returncode != 0 else ""

    return compile_with


def test_all_declarations_are_understood() -> None:
    assert set(type_names(OURS)) == set(TYPES)
    assert len(constants(OURS)) == len(re.findall(r"^ +SMN_NVML_\w+\b", OURS, re.MULTILINE)) > 50
    assert len(functions(OURS)) == len(re.findall(r"ADD\(nvml", OURS)) > 20


def test_our_declarations_are_theirs(complaints: Compile) -> None:
    assert complaints(OURS) == ""


# ---- that it would be noticed -------------------------------------------------------------------


def test_each_wrong_constant_is_noticed(complaints: Compile) -> None:
    changed = re.sub(r"(SMN_NVML_\w+ = )(\w+)", r"\1 1000 + \2", OURS)
    errors = complaints(changed)
    assert [name for name in constants(OURS) if f"<{name}>" not in errors] == []


def test_each_wrong_argument_is_noticed(complaints: Compile) -> None:
    def with_wrong(which: int, match: re.Match[str]) -> str:
        arguments = match[2].split(", ")
        if which < len(arguments) and match[2] != "void":
            arguments[which] = "short *" if arguments[which].endswith("*") else "double"
        return match[1] + ", ".join(arguments)

    for which in range(4):
        changed = re.sub(
            r"(ADD\(nvml\w+,[\s\\]*\()([^)]*)", functools.partial(with_wrong, which), OURS
        )
        pairs = zip(functions(OURS), functions(changed), strict=True)
        expected = [ours.name for ours, other in pairs if ours != other]
        errors = complaints(changed)
        assert expected
        assert [name for name in expected if f"<{name}>" not in errors] == []


def test_a_wrong_number_of_arguments_is_noticed(complaints: Compile) -> None:
    more = re.sub(r"(ADD\(\w+,[\s\\]*\()void\)", r"\1int)", OURS)
    more = re.sub(r"(ADD\(\w+,[\s\\]*\()(?!int\))", r"\1int, ", more)
    errors = complaints(more)
    assert [name for name, _ in functions(OURS) if f"<{name}>" not in errors] == []


WRONG_TYPES = {
    "unsigned int": "int",
    "unsigned long long": "long long",
    "unsigned long": "long",
    "unsigned short": "short",
    "signed long long": "unsigned long long",
    "long long": "unsigned long long",
    "int": "float",
    "double": "long long",
    "char": "signed char",
    "char *": "int *",
    "smn_nvml_value": "double",
    "smn_nvml_gpm_sample": "smn_nvml_device",
    "smn_nvml_gpm_metric": "smn_nvml_field_value",
}
"""Of the same size where there is one."""


@pytest.mark.parametrize("member", list(members(OURS)), ids=lambda m: f"{m.structure}.{m.name}")
def test_each_wrong_member_is_noticed(member: Member, complaints: Compile) -> None:
    structure, kind, name, length = member
    inner = name.rpartition(".")[2] + length

    def declared(kind: str, name: str) -> str:
        return f" {kind}{name};" if kind.endswith("*") else f" {kind} {name};"

    head, end = OURS.split(f"}} {structure};")
    beginning, _, body = head.rpartition("typedef ")
    assert body.count(declared(kind, inner)) == 1
    changes = [declared(WRONG_TYPES[kind], inner), declared(kind, f"other_{inner}")]
    if length not in ("", "[]"):
        changes.append(declared(kind, inner.replace("[", "[1")))
    if "union" not in body:
        changes.append(declared(kind, "added") + "\n" + declared(kind, inner))
    for change in changes:
        changed = body.replace(declared(kind, inner), change)
        errors = complaints(f"{beginning}typedef {changed}}} {structure};{end}")
        assert f"<{structure}.{name}>" in errors or "no member named" in errors, change


@pytest.mark.parametrize(
    ("declaration", "change"),
    [
        ("typedef void *smn_nvml_device;", "typedef char smn_nvml_device;"),
        ("typedef void *smn_nvml_gpm_sample;", "typedef int smn_nvml_gpm_sample;"),
        ("nvmlInit_v2,", "nvmlInit,"),
        ("nvmlDeviceGetCount_v2,", "nvmlDeviceGetCount,"),
        ("nvmlDeviceGetPciInfo_v3,", "nvmlDeviceGetPciInfo_v2,"),
        ("ADD(nvmlDeviceGetMemoryInfo,", "ADD(nvmlDeviceGetMemoryInfo_v2,"),
        ("nvmlDeviceGetUUID,", "nvmlDeviceGetUuid,"),
    ],
)
def test_other_mistakes_are_noticed(declaration: str, change: str, complaints: Compile) -> None:
    assert OURS.count(declaration) == 1
    assert complaints(OURS.replace(declaration, change)) != ""
