"""A page replaces what the same command wrote before, and nothing that a person wrote."""

import pytest

from hf_galaxy.errors import BadInput
from hf_galaxy.reports.charts import Figure
from hf_galaxy.reports.page import check_page, write_page

MARK = "<!-- made by a command -->"


def test_a_page_and_its_figures_replace_those_of_before(tmp_path):
    out = tmp_path / "new" / "study"
    check_page(out, MARK)
    write_page(
        out, MARK, [Figure("curves-a", b"1", "x\n1\n", ""), Figure("curves-b", b"2", "", "")], ("curves-", "joint-")
    )
    (out / "joint-notes.txt").write_text("of an earlier page")
    (out / "notes.txt").write_text("of a person")
    check_page(out, MARK)
    write_page(out, f"{MARK} again", [Figure("curves-a", b"3", "x\n2\n", "")], ("curves-", "joint-"))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        "README.md": f"{MARK} again".encode(), "curves-a.png": b"3", "curves-a.csv": b"x\n2\n", "notes.txt": b"of a person",
    }  # fmt: skip


def test_a_page_of_a_person_or_a_file_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(BadInput, match=r"README\.md was not made by this command"):
        check_page(tmp_path, MARK)
    with pytest.raises(BadInput, match="is a file"):
        check_page(tmp_path / "README.md", MARK)
