"""The library is imported, and a model answers, on a system that has no Unix modules and no glibc, such as Windows."""

from hf_galaxy import load_tree
from tests.forks import run_code

PROGRAM = """
import ctypes, os, signal, sys
import psutil  # its version for Linux needs resource, that for Windows does not
import accelerate, datasets, galsim, transformers.pipelines  # which look for the functions below in ways of their own

for name in ("fcntl", "resource"):
    sys.modules[name] = None  # importing it fails
for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
    del sys.modules[name]  # to be imported once more, without fcntl
for name in ("fork", "getuid", "killpg", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setsid", "sysconf"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1"):
    delattr(signal, name)

class Library(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name is None:
            raise TypeError("as Windows says")
        super().__init__(name, *arguments, **options)

ctypes.CDLL = Library

import importlib, pkgutil
from pathlib import Path
import hf_galaxy

for module in pkgutil.walk_packages(hf_galaxy.__path__, "hf_galaxy."):
    importlib.import_module(module.name)

import torch
from hf_galaxy import GalaxyConfig
from hf_galaxy import GalaxyForVotes
from hf_galaxy.training.estimate import _peak_memory
from hf_galaxy.locks import locked
from hf_galaxy.training.processes import keep_freed_memory

keep_freed_memory()
assert _peak_memory(torch.device("cpu")) > 10**6
with locked(Path(sys.argv[1]) / "lock"):
    model = GalaxyForVotes(GalaxyConfig(backbone="test_convnext", tree="gz2", image_size=32)).eval()
    with torch.inference_mode():
        print(model(pixel_values=torch.zeros(2, 3, 32, 32)).fractions.shape)
"""


def test_everything_is_imported_and_a_model_answers_without_unix(tmp_path):
    done = run_code(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"torch.Size([2, {len(load_tree('gz2').columns)}])", done.stdout
    assert f"{tmp_path}: its file system cannot lock files (fcntl is unavailable)" in done.stderr
