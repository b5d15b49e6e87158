"""Files and folders appear whole or not at all, and what was finished before an interruption is found again."""

import ast
import json
import os
import re
import signal
import stat
import time
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import save_file

from hf_galaxy import files as atomic
from hf_galaxy.errors import BadInput, InUse
from hf_galaxy.files import Share, new_folder, part_of_folder, replaced_folder, whole_file, write_json
from tests.conftest import ROOT


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(folder, *names):
    for name in names:
        with whole_file(folder / name) as partial:
            partial.write_text(f"content of {name}")


def half_write(path):
    with whole_file(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt


def fill_and_fail(out, fingerprint, *names):
    with new_folder(out, fingerprint) as folder:
        fill(folder, *names)
        half_write(folder / "never.txt")


def interrupted(out, fingerprint, *names):
    """A block that finishes these files and is interrupted while it writes another."""
    with pytest.raises(KeyboardInterrupt):
        fill_and_fail(out, fingerprint, *names)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with whole_file(path) as partial:
        assert partial.parent == path.parent
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert everything_in(tmp_path) == ["deep", "deep/file.txt"]


def test_a_file_that_is_not_finished_is_as_it_was_before(tmp_path):
    for before in ([], ["file.txt"]):
        fill(tmp_path, *before)
        with pytest.raises(KeyboardInterrupt):
            half_write(tmp_path / "file.txt")
        assert everything_in(tmp_path) == before
    assert (tmp_path / "file.txt").read_text() == "content of file.txt"
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "never written"):
        pass


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file.txt"
    with whole_file(path) as first:
        first.write_text("first, ")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        with first.open("a") as file:
            file.write("to its end")
    assert path.read_text() == "first, to its end"
    assert everything_in(tmp_path) == ["file.txt"]


def write_often(path, letter):
    for _ in range(100):
        with whole_file(path) as partial, partial.open("w") as file:
            for _ in range(20):
                file.write(letter * 1000)


def test_a_reader_sees_the_whole_file_of_one_of_several_processes(tmp_path):
    path = tmp_path / "file.txt"
    write_often(path, "-")
    processes = [get_context("fork").Process(target=write_often, args=(path, letter)) for letter in "abc"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        text = path.read_text()
        assert text == 20_000 * text[0]
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert everything_in(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_has_the_mode_that_the_umask_gives_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "weights.safetensors") as partial:
            save_file({"weight": torch.zeros(2)}, partial)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == mode


def test_what_a_killed_writer_has_left_is_removed_a_day_later(tmp_path):
    names = [
        ".file.txt.0123.partial",
        ".file.txt.4567.partial",
        ".file.txt.more.txt",
        ".file.partial",
        "file.txt.partial",
    ]
    yesterday = time.time() - 25 * 3600
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, None if "4567" in name else (yesterday, yesterday))
    (tmp_path / ".file.txt.partial").mkdir()  # of a folder
    os.utime(tmp_path / ".file.txt.partial", (yesterday, yesterday))
    fill(tmp_path, "file.txt")
    assert everything_in(tmp_path) == sorted([*names[1:], ".file.txt.partial", "file.txt"])


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 0.1]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 0.1]}
    assert everything_in(tmp_path) == ["a.json"]


@pytest.mark.parametrize("empty_folder_before", [False, True])
def test_a_folder_appears_when_it_is_whole(tmp_path, empty_folder_before):
    out = tmp_path / "out"
    if empty_folder_before:
        out.mkdir()
    with new_folder(out, "made of x") as folder:
        fill(folder, "a.txt", "deep/b.txt")
        assert not out.exists() or not any(out.iterdir())
    assert everything_in(tmp_path) == ["out", "out/a.txt", "out/deep", "out/deep/b.txt"]
    assert (out / "deep/b.txt").read_text() == "content of deep/b.txt"


def test_a_failure_before_any_file_is_finished_leaves_nothing(tmp_path):
    interrupted(tmp_path / "out", "x")
    assert everything_in(tmp_path) == []


def test_finished_files_are_found_again_by_the_same_fingerprint(tmp_path):
    out = tmp_path / "out"
    interrupted(out, "x", "deep/a.txt")
    assert not out.exists()
    interrupted(out, "x")  # which finishes nothing more, but does not lose what there is
    with new_folder(out, "x") as folder:
        assert (folder / "deep/a.txt").read_text() == "content of deep/a.txt"
        fill(folder, "b.txt")
    assert everything_in(tmp_path) == ["out", "out/b.txt", "out/deep", "out/deep/a.txt"]
    assert (out / "b.txt").read_text() == "content of b.txt"


def test_finished_files_of_another_fingerprint_are_not_thrown_away(tmp_path):
    out = tmp_path / "out"
    interrupted(out, "x", "a.txt")
    before = everything_in(tmp_path)
    with pytest.raises(BadInput, match="holds the finished files of an interrupted command"), new_folder(out, "y"):
        pass
    assert everything_in(tmp_path) == before


def test_neighbours_with_their_own_names_are_left_alone(tmp_path):
    interrupted(tmp_path / "one", "x", "a.txt")
    with new_folder(tmp_path / "two", "x") as folder:
        assert not (folder / "a.txt").exists()
        fill(folder, "b.txt")
    with new_folder(tmp_path / "one", "x") as folder:
        assert (folder / "a.txt").exists()
    files = [path for path in everything_in(tmp_path) if path.endswith(".txt")]
    assert files == ["one/a.txt", "two/b.txt"]


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = everything_in(tmp_path)
    for name in ("full", "file"):
        with pytest.raises(BadInput, match=rf"{name} exists already; remove it or choose another --out"):
            new_folder(tmp_path / name, "x").__enter__()
    with pytest.raises(BadInput, match="cannot be written"):
        new_folder(tmp_path / "file" / "out", "x").__enter__()
    assert everything_in(tmp_path) == before
    assert (tmp_path / "full/a.txt").read_text() == "mine"


def fill_slowly(context, out, started, end):
    with context(out) as folder:
        fill(folder, "a.txt")
        started.set()
        end.wait(60)
        fill(folder, "b.txt")


def test_what_an_interrupted_publication_has_finished_is_not_removed_by_what_replaces_a_folder(tmp_path):
    out = tmp_path / "out"
    interrupted(out, "x", "a.txt")
    with replaced_folder(out) as folder:
        fill(folder, "b.txt")
    assert everything_in(out) == ["b.txt"]
    assert (tmp_path / ".out.partial" / "a.txt").read_text() == "content of a.txt"


def resumed(out):
    return new_folder(out, "x")


@pytest.mark.parametrize("context", [resumed, replaced_folder])
def test_of_two_that_write_one_folder_the_second_is_refused_and_leaves_the_first_alone(tmp_path, context):
    out, started, end = tmp_path / "out", get_context("fork").Event(), get_context("fork").Event()
    first = get_context("fork").Process(target=fill_slowly, args=(context, out, started, end))
    first.start()
    assert started.wait(60)
    before = everything_in(tmp_path)
    for second in (context(out), new_folder(out, "another"), replaced_folder(out)):
        with pytest.raises(BadInput, match=f"{out}: another command writes it at this moment"), second:
            pass
        assert everything_in(tmp_path) == before
    end.set()
    first.join()
    assert first.exitcode == 0
    assert everything_in(tmp_path) == ["out", "out/a.txt", "out/b.txt"]


def test_a_folder_that_was_written_meanwhile_is_refused(tmp_path, monkeypatch):
    """The second was about to begin when the first ended."""
    out = tmp_path / "out"
    real = atomic.locked

    def late(path, refusal):
        monkeypatch.setattr(atomic, "locked", real)
        with new_folder(out, "x") as folder:
            fill(folder, "a.txt")
        return real(path, refusal)

    monkeypatch.setattr(atomic, "locked", late)
    with pytest.raises(BadInput, match="exists already"), new_folder(out, "x"):
        pass
    assert everything_in(tmp_path) == ["out", "out/a.txt"]


def killed_while_writing(out, finished):
    with new_folder(out, "x") as folder:
        fill(folder, *finished)
        with whole_file(folder / "data" / "b.parquet") as partial:
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("finished", [[], ["data/a.parquet"]])
def test_a_killed_process_leaves_only_its_finished_files(tmp_path, finished):
    out = tmp_path / "out"
    process = get_context("fork").Process(target=killed_while_writing, args=(out, finished))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert len(everything_in(tmp_path)) > 2, "something was left half-written"
    interrupted(out, "x")
    if not finished:
        assert everything_in(tmp_path) == [], "a half-written file does not count as finished"
        return
    with new_folder(out, "x") as folder:
        assert (folder / "data/a.parquet").exists()
        assert not (folder / "data/b.parquet").exists()
        fill(folder, "data/b.parquet")
    assert everything_in(out) == ["data", "data/a.parquet", "data/b.parquet"]
    assert (out / "data/b.parquet").read_text() == "content of data/b.parquet"


def test_json_is_read_as_it_was_written_with_lists_on_one_line(tmp_path):
    data = {"a": [1.5, None, 2], "odd": ["x  y", "[ z\n ]", "{", "] \n  ["], "deep": [{"b": [[1, 2], []]}], "none": {}}
    write_json(tmp_path / "data.json", data)
    text = (tmp_path / "data.json").read_text()
    assert json.loads(text) == data
    assert '"a": [1.5, null, 2]' in text
    assert "[1, 2]" in text


def test_text_files_are_utf_8_whatever_the_locale():
    """Python takes the encoding of the locale where a program names none, and cards have letters that Latin-1 lacks."""
    without = []
    for path in [*(ROOT / "hf_galaxy").rglob("*.py"), *(ROOT / "spaces_app").rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            texts = [
                each.value
                for each in [*call.args[:2], *(k.value for k in call.keywords)]
                if isinstance(each, ast.Constant)
            ]
            binary = any(isinstance(text, str) and re.fullmatch("[rwax]?b\\+?|[rwax]b\\+?", text) for text in texts)
            is_open = isinstance(call.func, ast.Name) and name == "open"
            if (name in ("read_text", "write_text") or (is_open and not binary)) and "encoding" not in {
                k.arg for k in call.keywords
            }:
                without.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not without


def test_parts_of_different_commands_do_not_share_a_folder(tmp_path):
    """Also before the first of them has finished a file."""
    out, first, second = tmp_path / "out", Share(1, 2), Share(2, 2)
    with part_of_folder(out, "x", first) as folder:
        refusal = pytest.raises(InUse, match="another command writes a part of it at this moment")
        with refusal, part_of_folder(out, "y", second):
            pass
        with part_of_folder(out, "x", second) as same:
            assert same == folder
        (folder / "a.txt").write_text("a")
    refusal = pytest.raises(BadInput, match="holds the finished files of an interrupted command")
    with refusal, part_of_folder(out, "y", second):
        pass
    (folder / "a.txt").unlink()
    with part_of_folder(out, "y", second) as other:  # nobody writes it, and nothing is finished
        assert not any(other.iterdir())


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/4", "\u0661/4"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="is no part such as 3/16"):
        Share.parse(text)
