"""A Hub that is busy, broken, slow, or breaks off: a command waits for it, or says so in one line, and the same command completes."""

import shutil

import pytest

TROUBLES = ("busy", "broken", "slow", "half")
pytestmark = pytest.mark.nightly  # a client tries again for up to 23 seconds


def one_line_or_well(done):
    """Either it has succeeded, or it says why not."""
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode:
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr


def files_of(folder):
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("after", [0, 2, 5])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_dataset_and_a_model_come_from_a_hub_in_trouble(trouble, after, hub, run_with_hub, materials, tmp_path):
    name = f"{trouble}{after}"  # of which nothing is in the cache
    shutil.copytree(materials.folder / "data", hub.folder("datasets", f"lab/{name}"))
    shutil.copytree(materials.folder / "run", hub.folder("models", f"lab/{name}"))
    words = ("scripts/embed.py", "--model", f"lab/{name}", "--dataset", f"lab/{name}", "--workers", 0, "--cpu", "--out")
    for times in (2, 100):
        hub.trouble(trouble, after, times)
        one_line_or_well(run_with_hub(*words, tmp_path / f"{times}"))
    hub.heal()
    done = run_with_hub(*words, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for times in (2, 100):
        if (tmp_path / f"{times}").exists():
            assert files_of(tmp_path / f"{times}") == files_of(tmp_path / "out")


@pytest.mark.parametrize("after", [0, 3, 6])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_is_pushed_to_a_hub_in_trouble_is_whole_in_the_end(trouble, after, hub, run_with_hub, materials, tmp_path):
    run = shutil.copytree(materials.folder / "run", tmp_path / "run")
    words = ("scripts/publish_model.py", "--run", run, "--license", "mit", "--push", f"lab/{trouble}-pushed-{after}")
    for times in (2, 100):
        hub.trouble(trouble, after, times)
        one_line_or_well(run_with_hub(*words))
    hub.heal()
    done = run_with_hub(*words)
    assert done.returncode == 0, done.stderr
    assert files_of(hub.folder("models", f"lab/{trouble}-pushed-{after}")) == files_of(run)
