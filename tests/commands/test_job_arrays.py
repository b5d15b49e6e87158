"""The job array of docs/howto/slurm.md: what its scripts start, with stand-ins for the programs of Slurm."""

import os
import subprocess

from hf_galaxy.commands.predict import command
from tests.conftest import ROOT
from tests.documentation import blocks_of

# Each job of an array runs at once, and says its number; a dependency has to be on a job that there is.
SBATCH = """#!/bin/bash
set -e
while [[ $1 == --* ]]; do
  if [[ $1 == --dependency=* ]]; then [[ $1 == --dependency=afterok:17 ]]; touch waits; fi
  shift
done
span=$(sed -n 's/^#SBATCH.*--array=\\([0-9]*\\)-\\([0-9]*\\) .*/\\1 \\2/p' "$1")
if [[ $span ]]; then
  for task in $(seq $span); do SLURM_ARRAY_TASK_ID=$task bash "$1"; done
else
  bash "$1"
fi
echo 17
"""


def test_the_parts_of_the_array_are_all_and_a_last_command_finishes_them(tmp_path):
    text = (ROOT / "docs/howto/slurm.md").read_text()
    [script] = [block.text for block in blocks_of(text) if "--array" in block.text]
    programs = {"sbatch": SBATCH, "srun": '#!/bin/bash\n"$@"\n', "hf-galaxy": f'#!/bin/bash\necho "$@" >> {tmp_path}/log\n'}  # fmt: skip
    for name, program in programs.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=os.environ | path, check=True, capture_output=True)
    assert (tmp_path / "waits").exists(), "the last command waits for the array"
    started = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {words[0] for words in started} == {"predict"}
    *array, last = [command.read(words[1:]) for words in started]
    [of] = {share.of for share in (settings.share() for settings in array)}
    assert sorted(settings.share().number for settings in array) == list(range(1, of + 1))
    assert last.share() is None
    same = ("run", "dataset", "out", "batch_size", "precision", "split")
    assert {tuple(getattr(each, name) for name in same) for each in (*array, last)} == {
        tuple(getattr(last, name) for name in same)
    }
