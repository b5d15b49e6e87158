"""How much faster a training step on a CPU is when memory that tensors free is kept, as `processes.start_accelerator` has it.

    python benchmarks/kept_memory.py [--backbones tf_efficientnet_lite0 convnext_atto] [--image-size 224]

Linux with glibc alone; see benchmarks/README.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from material import machine, spread

from hf_galaxy.command_line import Command
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes
from hf_galaxy.models.start import resolve_start
from hf_galaxy.training import processes
from hf_galaxy.training.optimizers import make_optimizer, parameter_groups
from hf_galaxy.training.recipe import Recipe

M_MMAP_THRESHOLD = -3
PACKAGES = ["hf_galaxy", "torch", "timm"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure training steps on tensors in memory, with the C library as it is by default and as training sets it, in turn."""

    backbones: tuple[str, ...] = ("convnext_atto", "tf_efficientnet_lite0", "resnet18")
    """Timm architectures."""
    image_size: int = 224
    """Side of what they see, in pixels."""
    batch_size: int = 32
    """Galaxies a step."""
    steps: int = 2
    """Steps of each kind that are timed in a round, after as many that are not."""
    repeats: int = 8
    """Rounds."""


def give_back() -> None:
    """What glibc comes to by itself in training: it has seen large pieces freed, and mapped only larger ones since."""
    for option, value in (
        (processes.M_MMAP_MAX, 65536),
        (M_MMAP_THRESHOLD, 2**25),
        (processes.M_TRIM_THRESHOLD, 2**26),
    ):
        processes.mallopt(option, value)


WAYS = {"given back": give_back, "kept": processes.keep_freed_memory}


def step_of(backbone: str, settings: Settings) -> Callable[[], None]:
    """A training step on random pictures and votes."""
    fields, _ = resolve_start(backbone, None, settings.image_size)
    tree, recipe = load_tree("gz_evo"), Recipe(epochs=1)
    model = GalaxyForVotes(GalaxyConfig(tree=tree, image_size=settings.image_size, **fields))
    model.to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(recipe.optimizer, parameter_groups(model, recipe.weight_decay))
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    pictures = torch.rand(settings.batch_size, 3, settings.image_size, settings.image_size)
    votes = torch.randint(0, 9, (settings.batch_size, len(tree.columns)), dtype=torch.int32)

    def step():
        model(pixel_values=pictures, votes=votes).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(settings: Settings) -> None:
    if not processes.mallopt(processes.M_MMAP_MAX, 65536):
        raise BadInput("only glibc can be told what to keep")
    if min(settings.batch_size, settings.steps, settings.repeats) < 1:
        raise BadInput("--batch-size, --steps and --repeats must be at least 1")
    print(
        f"{settings.image_size} px, batches of {settings.batch_size}, float32, {torch.get_num_threads()} threads; median (least to "
        f"most) of {settings.repeats} rounds.\n\n{machine(*PACKAGES)}\n\n"
        f"| backbone | {', ms per image | '.join(WAYS)}, ms per image | {' / '.join(WAYS)} |\n|---|---:|---:|---:|"
    )
    for backbone in settings.backbones:
        step, taken = step_of(backbone, settings), {way: [] for way in WAYS}
        for number in range(settings.repeats):
            for way in list(WAYS)[:: 1 if number % 2 else -1]:
                WAYS[way]()
                for _ in range(settings.steps):
                    step()
                start = time.perf_counter()
                for _ in range(settings.steps):
                    step()
                taken[way].append(1000 * (time.perf_counter() - start) / settings.steps / settings.batch_size)
        faster = [before / after for before, after in zip(*taken.values(), strict=True)]
        print(
            f"| {backbone} | {' | '.join(spread(each, 2) for each in taken.values())} | {spread(faster, 2)} |",
            flush=True,
        )


if __name__ == "__main__":
    Command(Settings, main)()
