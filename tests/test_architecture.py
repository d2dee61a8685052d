"""The shape of the house: imports flow downstream, kernels stay apart, and the stub tells the truth."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import firth

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "firth"
SOURCES = ROOT / "csrc"

# Upstream first. A module may import those of earlier rows, and its own row's.
FLOW = [
    ["_core", "_tokens"],
    ["checks", "runtime", "files", "tables"],
    ["options", "text"],
    ["run"],
    ["fused_attention"],
    ["quantization"],
    ["fasttext_format"],
    ["corpus", "formats"],
    ["vectors", "counts"],
    ["models", "evaluate", "phrases"],
    ["contextual"],
    ["loading"],
    ["cli"],
    ["__main__"],
]


def firth_imports(path):
    """Modules of firth that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "firth":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("firth."))


def stem(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_imports_flow_downstream(path):
    rank = {name: i for i, names in enumerate(FLOW) for name in names}
    if stem(path) == "__init__":
        return
    assert stem(path) in rank, f"give {path.name} its place in FLOW"
    if stem(path) == "cli":  # the end of the stream: it may use the public face
        return
    for name in firth_imports(path):
        assert rank[name] <= rank[stem(path)], f"{path.name} imports {name}, which lies downstream of it"


def test_only_bindings_know_pybind11():
    for path in SOURCES.rglob("*.?pp"):
        if path.parent.name != "bindings":
            assert "pybind11" not in path.read_text(), path


def included(path):
    """Headers that a file includes, directly or by way of headers of ours: (by which file, header of the system)."""
    seen, left = set(), [path]
    while left:
        here = left.pop()
        if here in seen:
            continue
        seen.add(here)
        text = here.read_text()
        yield from ((here.name, header) for header in re.findall(r"#include <(.+?)>", text))
        # isas.hpp is made by CMake, and includes nothing.
        left += [SOURCES / header for header in re.findall(r'#include "(.+?)"', text) if header != "isas.hpp"]


@pytest.mark.parametrize("path", sorted((SOURCES / "kernels").glob("*.cpp")), ids=lambda path: path.stem)
def test_kernels_use_no_standard_containers(path):
    """A shared inline function compiled for AVX-512 could be linked into code for every processor."""
    allowed = {"cstdint", "cstddef", "type_traits", "immintrin.h", "arm_neon.h"}
    wrong = [f"{name} includes <{header}>" for name, header in included(path) if header not in allowed]
    assert not wrong


def stubbed(body):
    """What a stub declares: functions with their parameters, classes with their members, and None for the rest."""
    names = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            attribute = any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)
            names[node.name] = None if attribute else [one.arg for one in arguments if one.arg != "self"]
        elif isinstance(node, ast.ClassDef):
            names[node.name] = stubbed(node.body)
        elif isinstance(node, ast.AnnAssign):
            names[node.target.id] = None
    return names


def parameters(function):
    try:
        found = list(inspect.signature(function).parameters)
    except ValueError:  # pybind11 writes the signature into the docstring
        line = function.__doc__.splitlines()[0]
        found = re.findall(r"(\w+): ", line[line.index("(") : line.rindex(")")])
    return [name for name in found if name != "self"]


def compiled(thing, module):
    """What there is, in the form of `stubbed`."""
    names = {}
    for name, value in vars(thing).items():
        if inspect.isclass(value):
            if value.__module__ == module:
                names[name] = compiled(value, module)
        elif (name == "__init__" or not name.startswith("_")) and not inspect.ismodule(value):
            found = parameters(value) if callable(value) else None
            if found != ["args", "kwargs"]:  # pybind11's way of refusing to make an object
                names[name] = found
    return names


@pytest.mark.parametrize("name", ["_core", "_tokens"])
def test_stub_equals_module(name):
    stub = stubbed(ast.parse((PACKAGE / f"{name}.pyi").read_text()).body)
    found = compiled(importlib.import_module(f"firth.{name}"), f"firth.{name}")
    if name == "_tokens":  # Cython does not tell what __init__ takes
        for members in (*stub.values(), *found.values()):
            if isinstance(members, dict):
                members.pop("__init__", None)
    assert found == stub


def members(name, thing):
    """A public thing and the public functions, classes and properties in it, by name."""
    yield name, thing
    if inspect.isclass(thing) or inspect.ismodule(thing):
        for key in vars(thing):
            value = getattr(thing, key)
            if key.startswith("_") or not (callable(value) or isinstance(value, property)):
                continue
            if not inspect.ismodule(thing) or value.__module__ == thing.__name__:
                yield from members(f"{name}.{key}", value)


@pytest.mark.parametrize("name", firth.__all__)
def test_public_names_are_documented(name):
    for path, thing in members(name, getattr(firth, name)):
        own = thing.__doc__ if inspect.isclass(thing) else inspect.getdoc(thing)  # methods may inherit theirs
        assert own, path
        assert not own.startswith(f"{path.split('.')[-1]}("), f"{path} has only what dataclass writes"


def test_version_is_the_package_s():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert firth.__version__ == declared[1]
