"""Join published datasets of several campaigns into one, with a configuration for each: `publish combine` under a name of its own.

hf-galaxy combine --parts data/gz2 data/gz_decals_dr5 --out data/both
"""

from hf_galaxy.command_line import Command
from hf_galaxy.commands.publish import Combine, main

command = Command(Combine, main)

if __name__ == "__main__":
    command()
