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


def test_kernels_use_no_standard_containers():
    """A shared inline function compiled for AVX-512 could be linked into code for every processor."""
    allowed = {"cstdint", "cstddef", "immintrin.h", "arm_neon.h"}
    for path in (SOURCES / "kernels").glob("*.cpp"):
        headers = set(re.findall(r"#include <(.+?)>", path.read_text()))
        assert headers <= allowed, f"{path.name} includes {headers - allowed}"


def test_stub_equals_module():
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    declared = {
        node.name: [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        for node in stub.body
        if isinstance(node, ast.FunctionDef)
    }
    classes = {node.name for node in stub.body if isinstance(node, ast.ClassDef)}
    constants = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    compiled = {name for name in dir(_core) if not name.startswith("__")}
    assert compiled == set(declared) | classes | constants
    for name, arguments in declared.items():
        signature = getattr(_core, name).__doc__.splitlines()[0]
        found = re.findall(r"(\w+): ", signature[signature.index("(") : signature.rindex(")")])
        assert found == arguments, name


def test_public_names_are_documented():
    for name in firth.__all__:
        thing = getattr(firth, name)
        assert inspect.getdoc(thing), name


def test_version_is_the_package_s():
    assert firth.__version__ == version("firth")
