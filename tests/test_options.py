"""Options of classes: what they say of themselves."""

import importlib.util
import inspect
import re

import pytest

import firth.models
import firth.phrases
from firth.options import Options, declared_options, option

if all(importlib.util.find_spec(name) for name in ("torch", "tokenizers")):
    import firth.contextual


def subclasses(kind):
    for one in kind.__subclasses__():
        if one.__module__.startswith("firth."):
            yield one
            yield from subclasses(one)


CLASSES = sorted({*subclasses(Options)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_option_says_what_it_means(kind):
    """In one line that ends in a full stop and names only options that exist; and what None stands for."""
    options = {one.name: one for one in declared_options(kind)}
    for one in options.values():
        assert one.help.endswith("."), one.name
        assert "\n" not in one.help
        for name in re.findall(r"`(.+?)`", one.help + one.unset):
            assert name in options, (one.name, name)
        if one.default is None and one.type in (int, float, bool):
            assert one.unset, one.name


def test_a_docstring_lists_the_options_with_their_help():
    sections = inspect.getdoc(firth.models.LSA).split("\n\n")
    listed = next(one for one in sections if one.startswith("Parameters\n----------\n"))
    for one in declared_options(firth.models.LSA):
        assert f"\n{one.name}\n    {one.help}" in listed
    assert "\nthreads\n    Threads to use. None: all processors." in listed
    assert [one.split("\n")[0] for one in sections[2:]] == ["Parameters", "Notes", "Examples"]
    overridden = next(one for one in declared_options(firth.models.FastText) if one.name == "sample")
    assert f"\nsample\n    {overridden.help}" in inspect.getdoc(firth.models.FastText)


def test_an_option_that_overrides_another_means_the_same_unless_it_says_otherwise():
    made = {one.name: one for one in declared_options(firth.models.FastText)}
    assert made["sample"].help == {one.name: one for one in declared_options(firth.models.Word2Vec)}["sample"].help
    assert made["sample"].default == 1e-4
    loss = {one.name: one.help for one in declared_options(firth.models.FastTextClassifier)}["loss"]
    assert "ova" in loss
    assert option(1).metadata["help"] == ""
