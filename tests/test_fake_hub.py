"""The fake Hub and the real client libraries, which run in processes of their own: they read HF_ENDPOINT once."""

import http.client
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.forks import LIBRARIES, run_forked


@pytest.fixture
def hub(tmp_path):
    with FakeHub(tmp_path / "hub") as hub:
        yield hub


def run_client(hub, program, folder, **environment):
    """What a function of this file returns when it runs as a program that talks to the hub."""
    ours = {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment = os.environ | hub.environment | ours | environment
    done = run_forked(__file__, program.__name__, folder, environment=environment, server=LIBRARIES)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def files_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitattributes"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def round_trips(folder):
    import torch
    from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import DatasetCard, HfApi, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from transformers import AutoImageProcessor, ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline

    api = HfApi()
    rows = {"id": list(range(20)), "votes": [[i, 20 - i] for i in range(20)]}
    data = folder / "dataset" / "data"
    data.mkdir(parents=True)
    for name in ("main", "bars"):
        Dataset.from_dict(rows).to_parquet(data / f"{name}.parquet", batch_size=5)
    (folder / "dataset" / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n"
        "- config_name: main\n  default: true\n  data_files: data/main.parquet\n"
        "- config_name: bars\n  data_files: data/bars.parquet\n---\n# Galaxies\n"
    )

    # What is not there, what is there already, and who may not write
    assert api.whoami()["name"] == "tester"
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("lab/ghost")
    with pytest.raises(RepositoryNotFoundError):
        api.upload_folder(repo_id="lab/ghost", folder_path=folder / "dataset", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("lab/ghost")
    with pytest.raises(DatasetNotFoundError):
        load_dataset("lab/ghost")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("lab/galaxies", repo_type="dataset", token=False)
    for _ in range(2):
        assert api.create_repo("lab/galaxies", repo_type="dataset", exist_ok=True).repo_id == "lab/galaxies"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("lab/galaxies", repo_type="dataset")

    # A folder goes up, once, and comes back
    empty = api.dataset_info("lab/galaxies").sha
    for _ in range(2):
        done = api.upload_folder(repo_id="lab/galaxies", folder_path=folder / "dataset", repo_type="dataset")
        assert done.oid == api.dataset_info("lab/galaxies").sha != empty
    snapshot_download("lab/galaxies", repo_type="dataset", local_dir=folder / "downloaded")
    shutil.rmtree(folder / "downloaded" / ".cache")
    infos = api.get_paths_info("lab/galaxies", ["README.md", "data", "no"], repo_type="dataset")
    assert [info.path for info in infos] == ["README.md", "data"]
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("lab/galaxies", "no", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("lab/galaxies", "README.md", repo_type="dataset", revision="v9")

    # It loads: whole, one configuration, as a stream, some columns
    assert load_dataset("lab/galaxies")["train"].to_dict() == rows
    assert load_dataset("lab/galaxies", "bars", split="train").to_dict() == rows
    assert [row["id"] for row in load_dataset("lab/galaxies", streaming=True, split="train")] == rows["id"]
    stream = load_dataset("lab/galaxies", "bars", split="train", streaming=True, columns=["votes"])
    assert list(stream) == [{"votes": votes} for votes in rows["votes"]]

    # datasets pushes configurations, and again one of them; then the card changes
    for name, count in [("a", 3), ("b", 4), ("b", 5)]:
        DatasetDict({"train": Dataset.from_dict({"x": list(range(count))})}).push_to_hub("lab/pushed", name)
        assert load_dataset("lab/pushed", name, split="train").num_rows == count
    assert get_dataset_config_names("lab/pushed") == ["a", "b"]
    card = DatasetCard.load("lab/pushed")
    card.data.license = "cc-by-4.0"
    card.push_to_hub("lab/pushed", repo_type="dataset")
    assert DatasetCard.load("lab/pushed").data.license == "cc-by-4.0"

    # A model with its image processor
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=2)
    model = ResNetForImageClassification(config)
    model.push_to_hub("lab/model")
    ViTImageProcessor(size={"height": 32, "width": 32}).push_to_hub("lab/model")
    loaded = ResNetForImageClassification.from_pretrained("lab/model")
    assert all(map(torch.equal, model.state_dict().values(), loaded.state_dict().values()))
    assert AutoImageProcessor.from_pretrained("lab/model").size["height"] == 32
    card = b"---\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="lab/model")
    assert pipeline(model="lab/model").task == "image-classification"

    # A Space, of which a file is deleted
    (folder / "app").mkdir()
    for name in ("app.py", "old.py"):
        (folder / "app" / name).write_text("print('hello')\n")
    api.create_repo("lab/app", repo_type="space", space_sdk="gradio")
    api.upload_folder(repo_id="lab/app", folder_path=folder / "app", repo_type="space")
    api.delete_file("old.py", repo_id="lab/app", repo_type="space")
    assert set(api.list_repo_files("lab/app", repo_type="space")) == {".gitattributes", "app.py"}


def test_round_trips(hub, tmp_path):
    run_client(hub, round_trips, tmp_path)
    pushed = files_of(hub.folder("datasets", "lab/galaxies"))
    assert pushed == files_of(tmp_path / "dataset") == files_of(tmp_path / "downloaded")
    assert hub.requests.count(("POST", "/api/datasets/lab/galaxies/commit/main")) == 1
    assert set(files_of(hub.folder("models", "lab/model"))) >= {"config.json", "model.safetensors", "README.md"}
    assert list(files_of(hub.folder("spaces", "lab/app"))) == ["app.py"]


def test_parts_of_a_file(hub):
    folder = hub.folder("spaces", "lab/app")
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"0123456789")
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"))
    answers = []
    for wanted in ("bytes=2-4", "bytes=7-", "bytes=-2", "bytes=8-99", "bytes=10-", "all"):
        connection.request("GET", "/spaces/lab/app/resolve/main/a.txt", headers={"Range": wanted})
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers["Content-Range"], answer.read().decode()))
    connection.close()
    assert answers[:4] == [
        (206, "bytes 2-4/10", "234"),
        (206, "bytes 7-9/10", "789"),
        (206, "bytes 8-9/10", "89"),
        (206, "bytes 8-9/10", "89"),
    ]
    assert answers[4][0] == 416
    assert answers[5] == (200, None, "0123456789")


def push(folder):
    """Upload folder/files; returns the error, if any."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo("lab/files", repo_type="dataset", exist_ok=True)
    try:
        api.upload_folder(repo_id="lab/files", folder_path=folder / "files", repo_type="dataset")
    except Exception as error:
        return f"{error!r}, because of {error.__cause__!r}"
    return None


@pytest.fixture
def files(tmp_path):
    """Writes files to push."""

    def write(count):
        (tmp_path / "files").mkdir()
        for i in range(count):
            (tmp_path / "files" / f"{i:03}.parquet").write_text(f"file {i}")

    return write


def writes(hub):
    return ["commit" if "/commit/" in path else "lfs" for _, path in hub.requests if re.search("/commit/|^/lfs/", path)]


def test_an_upload_that_broke_off_goes_on(hub, tmp_path, files):
    """Without Xet, all LFS files come first and then one commit: nothing is visible before the end."""
    files(4)
    hub.fail(after=2)
    assert "403 Forbidden" in run_client(hub, push, tmp_path)
    assert files_of(hub.folder("datasets", "lab/files")) == {}
    hub.heal()
    hub.requests.clear()
    assert run_client(hub, push, tmp_path) is None
    assert writes(hub) == ["lfs", "lfs", "commit"]
    assert files_of(hub.folder("datasets", "lab/files")) == files_of(tmp_path / "files")


def test_with_xet_an_upload_is_committed_in_parts(hub, tmp_path, files):
    """As users have it, in commits of 250 files; with files that are not to go to Xet, which the fake Hub lacks."""
    pytest.importorskip("hf_xet")
    hub.lfs_suffixes = ()
    files(260)
    hub.fail(after=1)
    assert "403 Forbidden" in run_client(hub, push, tmp_path, HF_HUB_DISABLE_XET="0")
    assert len(files_of(hub.folder("datasets", "lab/files"))) == 250
    hub.heal()
    hub.requests.clear()
    assert run_client(hub, push, tmp_path, HF_HUB_DISABLE_XET="0") is None
    assert writes(hub) == ["commit"]
    assert files_of(hub.folder("datasets", "lab/files")) == files_of(tmp_path / "files")


def test_a_short_failure_is_tried_again(hub, tmp_path, files):
    files(1)
    hub.fail(after=0, status=503, times=1)
    assert run_client(hub, push, tmp_path) is None
    assert writes(hub) == ["lfs", "lfs", "commit"]


if __name__ == "__main__":
    print("\n" + json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
