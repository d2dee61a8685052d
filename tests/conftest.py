"""What several test files share."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from firth import _core

# A skipped test proves nothing, so where the environment variable CI is set, a skip is a failure, unless its reason
# matches one of these: what a machine or a Python of CI may lack. All packages are there: the extra `test-contextual`
# of pyproject.toml asks for them.
MAY_BE_ABSENT = [
    r"\bAMX\b",
    r"^one instruction set$",
    r"\bCUDA\b",
    r"^no folder .*FIRTH_DATA",
    r"\bsanitizer\b",
]
# Packages without wheels for some Pythons: the markers in the extra `test` say the same.
if sys.version_info >= (3, 14):
    MAY_BE_ABSENT.append("could not import 'gensim")
if sys.version_info >= (3, 13) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
    MAY_BE_ABSENT.append("could not import 'fasttext")


def skip_fails(reason: str) -> bool:
    """Whether a skip for this reason is a failure here."""
    return bool(os.environ.get("CI")) and not any(re.search(allowed, reason) for allowed in MAY_BE_ABSENT)


def _judged(report):
    """A report, failed if it is of a skip that is not allowed."""
    if report.skipped and not hasattr(report, "wasxfail"):
        path, line, reason = report.longrepr
        if skip_fails(reason.removeprefix("Skipped: ")):
            report.outcome = "failed"
            report.longrepr = (
                f"{path}:{line}: skipped in CI, where every test must run: {reason}\n"
                "Install what the test needs (pyproject.toml, .ci/run), or name in MAY_BE_ABSENT of tests/conftest.py "
                "what a machine may lack."
            )
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    return _judged((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    return _judged((yield))


class Route(NamedTuple):
    """How a kernel runs. Its results must equal the oracle's on every route."""

    isa: str
    threads: int
    back_end: str


@contextmanager
def in_use(isa: str) -> Iterator[str]:
    """Select an instruction set for a while."""
    before = _core.current_isa()
    _core.use_isa(isa)
    try:
        yield isa
    finally:
        _core.use_isa(before)


# Names with a plus differ from others in bf16 attention only.
@pytest.fixture(params=[name for name in _core.available_isas() if "+" not in name])
def isa(request):
    """Each instruction set that runs here, in use during the test."""
    with in_use(request.param):
        yield request.param


@pytest.fixture
def route(isa, threads, back_end):
    """Each instruction set, with one thread and with several, on each back end. A test may parametrize these three."""
    return Route(isa, threads, back_end)


# The ids do not contain "threads": the thread sanitizer's run selects by this word those tests that are about threads.
@pytest.fixture(params=[1, 3], ids=["alone", "in parallel"])
def threads(request):
    """How many threads a kernel is asked to use."""
    return request.param


@pytest.fixture(params=["cpu"])
def back_end(request):
    """Where a kernel runs."""
    return request.param


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real text and gold standards, which the project does not contain."""
    folder = Path(os.environ.get("FIRTH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set FIRTH_DATA to the folder of real text")
    return folder


@pytest.fixture(scope="session")
def fasttext():
    """fastText's own Python module."""
    return pytest.importorskip("fasttext.FastText")
