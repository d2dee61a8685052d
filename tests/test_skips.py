"""In CI a test that is skipped fails, unless its reason is one that tests/conftest.py allows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import conftest

TESTS = """
import pytest

def test_runs():
    pass

@pytest.mark.skipif(True, reason="no AMX here")
def test_of_absent_hardware():
    pass

@pytest.mark.skip(reason="no time")
def test_marked():
    pass

def test_of_an_absent_package():
    pytest.importorskip("no_such_package")

@pytest.fixture
def absent():
    pytest.skip("nothing here")

def test_of_an_absent_fixture(absent):
    pass

@pytest.mark.parametrize("value", [])
def test_of_no_values(value):
    pass

@pytest.mark.xfail(reason="known")
def test_expected_to_fail():
    assert False
"""


def test_a_skip_fails_in_ci_unless_its_reason_is_allowed(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_whole_file.py").write_text("import pytest\npytest.importorskip('no_such_package')")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    command += ["--continue-on-collection-errors"]
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    summary = result.stdout.partition("short test summary info")[2]
    outcomes = dict(reversed(line.split(" ")[:2]) for line in summary.splitlines() if "test_" in line)
    assert outcomes.pop("[1]") == "SKIPPED"  # the line of a skip names its place, not its test
    assert {re.sub(r".*::|\[.*", "", name): outcome for name, outcome in outcomes.items()} == {
        "test_runs": "PASSED",
        "test_marked": "ERROR",
        "test_of_an_absent_package": "FAILED",
        "test_of_an_absent_fixture": "ERROR",
        "test_of_no_values": "ERROR",
        "test_expected_to_fail": "XFAIL",
        "test_whole_file.py": "ERROR",
    }, result.stdout
    assert "skipped in CI, where every test must run: Skipped: no time" in result.stdout


def test_a_skip_is_only_that_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "")
    assert not conftest.skip_fails("no time")
    monkeypatch.setenv("CI", "true")
    assert conftest.skip_fails("no time")
    assert conftest.skip_fails("could not import 'sklearn': No module named 'sklearn'")
    assert not conftest.skip_fails("no folder /data; set FIRTH_DATA to the folder of real text")
