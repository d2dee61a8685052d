"""The shape of the house: imports flow downstream, kernels stay apart, and the stub tells the truth."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import firth
from firth import _core

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "firth"
SOURCES = ROOT / "csrc"

# Upstream first. A module may import those of earlier rows, and its own row's.
FLOW = [
    ["_core", "_tokens"],
    ["runtime", "files"],
    ["corpus", "formats"],
    ["vectors"],
    ["models", "evaluate"],
    ["demo"],
    ["cli"],
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
        left += [SOURCES / header for header in re.findall(r'#include "(.+?)"', text)]


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
        if name.startswith("_") and name != "__init__":
            continue
        if inspect.isclass(value):
            if value.__module__ == module:
                names[name] = compiled(value, module)
        elif callable(value):
            # Cython says nothing of the parameters of __init__.
            names[name] = ... if inspect.ismethoddescriptor(value) and not value.__doc__.startswith(name) else parameters(value)
        elif not inspect.ismodule(value):
            names[name] = None
    return names


@pytest.mark.parametrize("module", [_core, _tokens], ids=lambda module: module.__name__)
def test_stub_equals_module(module):
    stub = stubbed(ast.parse((PACKAGE / f"{module.__name__.split('.')[1]}.pyi").read_text()).body)
    assert compiled(module, module.__name__) == stub


def public_members(thing):
    """Public functions, classes and properties of a module or class, and itself, by dotted name."""
    yield thing.__name__, thing
    if inspect.isfunction(thing):
        return
    for name, value in vars(thing).items():
        if name.startswith("_"):
            continue
        if isinstance(value, (classmethod, staticmethod, property)) or inspect.isfunction(value) or inspect.isclass(value):
            value = getattr(thing, name)
            if isinstance(value, property) or value.__module__.startswith(thing.__module__ if inspect.isclass(thing) else thing.__name__):
                yield f"{thing.__name__}.{name}", value


def test_public_names_are_documented():
    pass


def test_version_is_the_package_s():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert firth.__version__ == declared[1]
