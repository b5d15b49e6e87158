"""What people who join rely on: files that GitHub and pre-commit read are valid, and check what `make` checks."""

import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.forks import run_forked

GITHUB = ROOT / ".github"
YAML = [*GITHUB.rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_files_that_others_read_are_yaml(file):
    assert yaml.safe_load(file.read_text())


def test_hooks_before_a_commit_are_the_checks_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    checks = {line.split(") ", 1)[1].removesuffix(" .") for line in recipe.splitlines()}
    (ours,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert ours["repo"] == "local"
    # A hook changes files, which pre-commit reports; `make lint` only says which would change.
    assert {hook["entry"] for hook in ours["hooks"]} == {f".venv/bin/{c.removesuffix(' --check')}" for c in checks}


def test_workflows_run_what_there_is():
    makefile = (ROOT / "Makefile").read_text()
    runs = []
    for file in (GITHUB / "workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            runs += [step["run"] for step in job["steps"] if "run" in step]
    for words in map(str.split, runs):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), words
    assert {"make test", "make docs", "python tests/first_answer.py"} <= set(runs)


def test_forms_of_issues_ask_for_something():
    for file in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(file.read_text())
        if file.name != "config.yml":
            assert {"name", "description", "body"} <= form.keys()
            assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_the_first_answer_of_macos_and_windows_comes_here_too():
    done = run_forked(ROOT / "tests/first_answer.py")
    assert done.returncode == 0, done.stderr
    assert re.match(r"hf_galaxy [\d.]+: featured", done.stdout)


def test_the_changelog_has_the_version_of_the_package():
    import hf_galaxy

    versions = re.findall(r"^## \[(.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == hf_galaxy.__version__
