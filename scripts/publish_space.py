"""Put the Space together as a folder, and with --push upload it to the Hub, where it starts by itself.

    python scripts/publish_space.py --out runs/space
    python scripts/publish_space.py --out runs/space --push ORG/NAME

The folder needs nothing of the repository: `pip install -r runs/space/requirements.txt`, `python runs/space/app.py`.
"""

from hf_galaxy.commands.space import command

if __name__ == "__main__":
    command()
