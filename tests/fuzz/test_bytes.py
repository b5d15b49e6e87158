"""Parsers of bytes, searched by atheris for inputs that take new ways through them; nightly, where it is installed."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

RUNS = 10_000
PARSERS = ("fits", "pictures", "fluxes", "tables", "trees", "maps", "settings", "records")


@pytest.mark.nightly
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="needs atheris: pip install '.[fuzz]'")
@pytest.mark.parametrize("parser", PARSERS)
def test_no_bytes_end_a_parser_with_another_error_than_ours(parser):
    command = [sys.executable, "-m", "tests.fuzz.harness", parser, str(RUNS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"stat::number_of_executed_units: {RUNS}" in done.stderr
