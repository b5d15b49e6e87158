"""In place of `python`: `python -m tests.launch [-m] PROGRAM ARGUMENTS` runs a Python file, or a module, in a fork of a server."""

import importlib.util
import sys

from tests.forks import run_forked

if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if program == "-m":
        module, *arguments = arguments
        program = importlib.util.find_spec(module).origin
    done = run_forked(program, *arguments)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)
