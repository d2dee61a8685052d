"""The shape of the house: imports flow downstream, kernels stay apart, and the stub describes the module."""

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

# Upstream first. A module may import those of earlier rows alone.
FLOW = [
    ["checks", "files", "tables"],
    ["options", "runtime", "text"],
    ["corpus", "fused_attention", "quantization", "run"],
    ["counts", "fasttext_format", "models.labeled_texts"],
    ["formats", "models.classifier_files", "phrases"],
    ["vectors"],
    ["evaluate", "models.base"],
    ["models.counted", "models.estimator", "models.word2vec"],
    ["models.baselines", "models.classifier", "models.fasttext", "models.glove", "models.spectral"],
    ["models"],
    ["contextual.figures", "contextual.hub", "contextual.operator", "contextual.processes"],
    ["contextual.interface", "contextual.tokenizer_training", "contextual.transformer"],
    ["contextual.generation", "contextual.tokenizer"],
    ["contextual.data", "contextual.elmo_network", "contextual.encoding", "contextual.huggingface"],
    ["contextual.examples", "contextual.loop", "contextual.sentences"],
    ["contextual.base", "contextual.static_start"],
    ["contextual.elmo", "contextual.transformer_model"],
    ["contextual.heads", "contextual.models"],
    ["contextual.finetuning"],
    ["contextual.classifiers"],
    ["contextual.loading"],
    ["contextual"],
    ["loading"],
    ["cli.options"],
    ["cli"],
    ["cli.common"],
    ["cli.classify", "cli.contextual", "cli.demo", "cli.static", "cli.text", "cli.vectors"],
    ["cli.train_contextual"],
    ["__main__"],
]


def dotted(path):
    """A file's name as a module of the package: contextual.loop."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem != "__init__"
}


def firth_imports(tree):
    """What a file imports from firth, at its top or inside a function: (module, name in it or "")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "firth":
            base = ".".join(node.module.split(".")[1:])
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                yield (inner, "", alias.asname or alias.name) if inner in MODULES else (base, alias.name, "")
        elif isinstance(node, ast.Import):
            yield from ((alias.name[6:], "", "") for alias in node.names if alias.name.startswith("firth."))


@pytest.mark.parametrize("name", MODULES)
def test_imports_flow_downstream(name):
    rank = {module: i for i, row in enumerate(FLOW) for module in row}
    assert rank.keys() == MODULES.keys(), "each module has its place in FLOW"
    for module, _, _ in firth_imports(ast.parse(MODULES[name].read_text())):
        # The public face imports its modules when their names are used: only the command line may use it.
        if module in MODULES:
            assert rank[module] < rank[name], f"{name} imports {module}, which is not upstream of it"


@pytest.mark.parametrize("name", MODULES)
def test_a_private_name_stays_in_its_file(name):
    tree = ast.parse(MODULES[name].read_text())
    imported = list(firth_imports(tree))
    aliases = {alias for _, _, alias in imported if alias}
    private = [f"{module}.{one}" for module, one, _ in imported if one.startswith("_") and module]
    private += [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if ast.unparse(node.value) in aliases or ast.unparse(node.value).startswith("firth.")
    ]
    assert not private, "a name that another file uses has no underscore"


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
