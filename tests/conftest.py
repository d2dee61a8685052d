"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firth import _core


# What a name has behind a plus shows in attention alone.
@pytest.fixture(params=[name for name in _core.available_isas() if "+" not in name])
def isa(request):
    """Each instruction set that runs here, in use during the test."""
    before = _core.current_isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(before)


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
