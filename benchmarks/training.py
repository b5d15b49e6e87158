"""How fast training is: on JPEGs from the disk, as every run trains, beside the same model on tensors in memory.

    python benchmarks/training.py [--backbone convnext_atto] [--image-size 96] [--images DIR_OR_ZIP]
    python benchmarks/training.py --backbone convnext_nano --image-size 224 --batch-size 256 --precision bf16 --workers 8

On a GPU if there is one; see benchmarks/README.md. Legend of shapes: B galaxies, A answers, S side of the view.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Literal

import datasets
import torch
from material import SIDE, encoded, machine, publish, spread
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hf_galaxy.command_line import Command
from hf_galaxy.data.copied import CopiedRows, open_copy
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.decision_tree import load_tree
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions
from hf_galaxy.models.model import GalaxyConfig, GalaxyForVotes
from hf_galaxy.models.start import resolve_start
from hf_galaxy.training.augmentation import train_view
from hf_galaxy.training.lengths import Lengths
from hf_galaxy.training.loop import Checkpointing, Trainer
from hf_galaxy.training.optimizers import make_optimizer, parameter_groups
from hf_galaxy.training.processes import start_accelerator
from hf_galaxy.training.recipe import Recipe
from hf_galaxy.training.sequence import ProcessShard, TrainingSequence, default_workers, training_batches
from hf_galaxy.training.targets.votes import Votes

TARGET = 0.95
IN_MEMORY = 4  # batches that the model in memory goes through, over and over
PACKAGES = ["hf_galaxy", "torch", "timm", "accelerate", "datasets", "simplejpeg"]
PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure images/s of training, from JPEGs and from memory in turn, and what each part of a step takes."""

    backbone: str = "convnext_atto"
    """A timm architecture."""
    image_size: int = 96
    """Side of what it sees, in pixels."""
    crop: float = 0.875
    """Share of the picture's side that it sees."""
    tree: str = "gz_evo"
    """Campaigns whose votes are learnt."""
    batch_size: int = 64
    """Galaxies a step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    compile: bool = False
    """torch.compile the model."""
    workers: int | None = None
    """Processes that decode pictures; by default as in training."""
    steps: int = 8
    """Steps of each kind that are timed in a round."""
    repeats: int = 4
    """Rounds."""
    galaxies: int = 1000
    """Pictures in the dataset."""
    images: Path | None = None
    """Folder or zip file of real pictures, to be cut square and encoded anew; without it mock galaxies are drawn."""
    cpu: bool = False
    """Train on the CPU even if there is a GPU."""


class Bench:
    """What is measured: the galaxies, and a model of its own for each way to train it."""

    def __init__(self, settings: Settings, rows: CopiedRows):
        self.settings, self.tree = settings, load_tree(settings.tree)
        self.accelerator = start_accelerator(settings.precision, settings.cpu)
        self.device = self.accelerator.device
        self.workers = default_workers(self.device) if settings.workers is None else settings.workers
        fields, _ = resolve_start(settings.backbone, None, settings.image_size)
        self.config = GalaxyConfig(tree=self.tree, image_size=settings.image_size, crop=settings.crop, **fields)
        self.framing, self.recipe = self.config.framing, Recipe(batch_size=settings.batch_size, epochs=1)
        self.sequence = TrainingSequence(Galaxies(rows, self.framing, Votes(self.tree), fast=True), seed=0)
        self.inputs = [self.to_inputs(self.on_device(batch)) for batch in islice(self.batches(range(99)), IN_MEMORY)]
        self.model = self.new_model().to(self.device)
        self.optimizer = self.new_optimizer(self.model)

    def new_model(self) -> GalaxyForVotes:
        """Random weights, always the same; laid out and compiled as in training."""
        torch.manual_seed(0)
        model = GalaxyForVotes(self.config).to(memory_format=torch.channels_last)
        if self.settings.compile:
            model.backbone.compile()
        return model

    def new_optimizer(self, model: GalaxyForVotes) -> torch.optim.Optimizer:
        """That of training."""
        return make_optimizer(self.recipe.optimizer, parameter_groups(model, self.recipe.weight_decay))

    def batches(self, steps: range, workers: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of training, as `hf_galaxy.training.run` has them."""
        return training_batches(self.sequence, self.settings.batch_size, steps, ProcessShard(), workers)

    def on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As `hf_galaxy.training.loop` does it."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def to_inputs(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Canvases on the device -> what the model is called with."""
        return {
            "pixel_values": train_view(batch["pixels"], batch["affine"], self.framing), "votes": batch["votes"]
        }  # fmt: skip

    def now(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall seconds of a call: the median of 5 rounds, each of as many calls as take about a tenth of a second."""
        work()
        start = self.now()
        work()
        calls = max(1, int(0.1 / (self.now() - start)))
        rounds = []
        for _ in range(5):
            start = self.now()
            for _ in range(calls):
                work()
            rounds.append((self.now() - start) / calls)
        return median(rounds)


def both_ways(bench: Bench) -> tuple[list[float], list[float], float]:
    """Seconds a step of `hf_galaxy.training.loop.Trainer` on JPEGs, and of a bare loop on tensors in memory; peak bytes of the first.

    The bare loop runs while the trainer waits for its next batch. Each way goes some steps before its clock starts: till the
    loader has no more in store than it has all the time, and till its workers, in store again, rest.
    """
    settings = bench.settings
    from_disk, from_memory, peaks = [], [], [0]
    settle = 3 + 2 * bench.workers
    total = settings.repeats * (settle + settings.steps) + 1
    bare, inputs = bare_steps(bench), cycle(bench.inputs)

    def interrupted(steps):
        coming = bench.batches(steps, bench.workers)
        for number in range(settings.repeats):
            print(f"round {number + 1} of {settings.repeats} ...", file=sys.stderr)
            reset_peak(bench.device)
            yield from islice(coming, settle)
            start = bench.now()
            yield from islice(coming, settings.steps)
            from_disk.append((bench.now() - start) / settings.steps)
            peaks.append(peak(bench.device) - held)
            for _ in range(settle):
                bare(next(inputs))
            start = bench.now()
            for _ in range(settings.steps):
                bare(next(inputs))
            from_memory.append((bench.now() - start) / settings.steps)
        yield from coming  # one more, so that the last of the round is over when it is asked for

    for _ in range(2):
        bare(next(inputs))  # its optimizer is in memory from here on, and it is compiled
    held = torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0
    model = bench.new_model()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        data = SimpleNamespace(accumulate=1, batches=interrupted, to_inputs=bench.to_inputs, validate=lambda model: 0.0)
        lengths = Lengths(bench.recipe, total * settings.batch_size)
        optimizer, checkpointing = bench.new_optimizer(model), Checkpointing(Path(folder))
        Trainer(model, optimizer, lengths, data, bench.accelerator, checkpointing).run()
    return from_disk, from_memory, max(peaks)


def bare_steps(bench: Bench) -> Callable[[dict], None]:
    """A training step with nothing around it: inputs -> forward, backward, clipping, optimizer."""
    accelerator = start_accelerator(bench.settings.precision, bench.settings.cpu)
    model = bench.new_model()
    model, optimizer = accelerator.prepare(model, bench.new_optimizer(model))
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    model.train()

    def step(inputs):
        accelerator.backward(model(**inputs).loss)
        accelerator.clip_grad_norm_(model.parameters(), bench.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def reset_peak(device: torch.device) -> None:
    """Forget the peak memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> int:
    """Most bytes of tensors on a GPU since then; 0 on a CPU, which does not count them."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def parts(bench: Bench) -> dict[str, float]:
    """Seconds a batch of each part of training, alone; not compiled."""
    settings, tree, model, optimizer = bench.settings, bench.tree, bench.model.train(), bench.optimizer
    batch = next(iter(bench.batches(range(1))))
    on_device, inputs = bench.on_device(batch), bench.inputs[0]
    positions, votes = list(range(settings.batch_size)), inputs["votes"]
    with torch.no_grad(), bench.accelerator.autocast():
        outputs = model.head_outputs(inputs["pixel_values"])
        answers = model(**inputs)
    leaf = outputs.detach().requires_grad_()
    baseline = ConstantVotes.of([votes.cpu().numpy()], tree, min_votes=20)
    metrics = VoteMetrics(tree, baseline)

    def network():
        with bench.accelerator.autocast():
            total = model.head_outputs(inputs["pixel_values"]).sum()
        total.backward()

    def likelihood():  # as in GalaxyForVotes.forward
        distributions = model.distributions(leaf)
        expected_fractions(distributions[0], tree, distributions[1])
        dirichlet_multinomial_nll(votes, distributions[0], tree, distributions[1]).sum(dim=1).mean().backward()

    def optimise():
        torch.nn.utils.clip_grad_norm_(model.parameters(), bench.recipe.clip_norm)
        optimizer.step()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    decoding = bench.seconds(lambda: bench.sequence[positions])
    torch.set_num_threads(threads)
    settle, timed = 4 + 2 * bench.workers, 10
    coming = bench.batches(range(settle + timed), bench.workers)
    list(islice(coming, settle))
    start = bench.now()
    list(coming)
    loader = (bench.now() - start) / timed
    return {
        "decoding and cutting, on one core": decoding,
        f"batches out of the loader, {bench.workers} workers": loader,
        "copy to the device": bench.seconds(lambda: bench.on_device(batch)),
        "random view": bench.seconds(lambda: bench.to_inputs(on_device)),
        "backbone and head, forward and backward": bench.seconds(network),
        "likelihood, forward and backward": bench.seconds(likelihood),
        "clipping and optimizer": bench.seconds(optimise),
        "metrics (in validation only)": bench.seconds(lambda: metrics.update(inputs, answers)),
    }


class Traffic(TorchDispatchMode):
    """Counts bytes: each operator reads each of its inputs once and writes each of its outputs once."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        if not operator.is_view and not operator.name().startswith("aten::empty"):
            tensors = [x for x in tree_leaves((args, kwargs, results)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return results


def work_of_a_step(bench: Bench) -> tuple[int, int]:
    """Floating-point operations and bytes of a step, not compiled.

    The backward pass counts as twice the forward one: FlopCounterMode, asked for it, takes the gradient of a depthwise
    filter for that of a full one, dozens of times too much for a ConvNeXt.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        bench.model(**bench.inputs[0])
    with Traffic() as traffic:
        with bench.accelerator.autocast():
            loss = bench.model.train()(**bench.inputs[0]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bench.model.parameters(), bench.recipe.clip_norm)
        bench.optimizer.step()
    return 3 * counted.get_total_flops(), traffic.bytes


def matrix_throughput(bench: Bench, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    side = 8192 if bench.device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=bench.device).to(dtype)
    return 2 * side**3 / bench.seconds(lambda: a @ b)


def memory_throughput(bench: Bench) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.ones(2**30 if bench.device.type == "cuda" else 2**28, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * len(source) / bench.seconds(lambda: target.copy_(source))


def main(settings: Settings) -> None:
    if settings.galaxies < settings.batch_size or min(settings.batch_size, settings.repeats, settings.steps) < 1:
        raise BadInput("--galaxies must be at least --batch-size, and that, --repeats and --steps at least 1")
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        publish(list(encoded(settings.images, settings.galaxies)), load_tree(settings.tree), Path(folder))
        bench = Bench(settings, open_copy(folder)["train"])
        from_disk, from_memory, peak_bytes = both_ways(bench)
        report(bench, from_disk, from_memory)
        report_parts(bench, median(from_disk), median(from_memory))
        report_device(bench, median(from_disk), peak_bytes)


def report(bench: Bench, from_disk: list[float], from_memory: list[float]) -> None:
    """Print images/s of both ways."""
    settings, batch = bench.settings, bench.settings.batch_size
    cuda = bench.device.type == "cuda"
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    source = f"pictures from {settings.images.name}" if settings.images else "mock galaxies"
    print(
        f"{settings.backbone}{', compiled' if settings.compile else ''}, {settings.image_size} px, batches of {batch}, "
        f"precision {settings.precision}, {len(bench.tree.columns)} answers; {source}, JPEGs of {SIDE} px; "
        f"{bench.workers} workers; {device}; median (least to most) of {settings.repeats} rounds.\n\n"
        f"{machine(*PACKAGES)}\n"
    )
    print("| | images/s | target |\n|---|---:|---:|")
    for name, seconds in (("from JPEGs", from_disk), ("from memory", from_memory)):
        print(f"| {name} | {spread([batch / s for s in seconds], 1)} | |")
    ratios = [memory / disk for memory, disk in zip(from_memory, from_disk, strict=True)]
    print(f"| from JPEGs / from memory | {spread(ratios, 3)} | >= {TARGET} |")


def report_parts(bench: Bench, from_disk: float, from_memory: float) -> None:
    """Print what each part takes."""
    measured = parts(bench)
    in_loop = sum(measured[name] for name in ("copy to the device", "random view"))
    print("\n| part, measured alone | ms per image | share of a step from JPEGs |\n|---|---:|---:|")
    for name, seconds in measured.items():
        print(f"| {name} | {1000 * seconds / bench.settings.batch_size:.3f} | {seconds / from_disk:.1%} |")
    for name, seconds in (
        ("from JPEGs less from memory", from_disk - from_memory),
        ("of which neither copy nor view: waiting for batches, workers' share of the CPU, loop", from_disk - from_memory - in_loop),
    ):  # fmt: skip
        print(f"| {name} | {1000 * seconds / bench.settings.batch_size:.3f} | {seconds / from_disk:.1%} |")


def report_device(bench: Bench, from_disk: float, peak_bytes: int) -> None:
    """Print what the device can do, and how much of it training from JPEGs uses."""
    flops, traffic = work_of_a_step(bench)
    batch = bench.settings.batch_size
    print(f"\nA step: {flops / batch / 1e9:.2f} GFLOP and {traffic / batch / 1e6:.1f} MB per image.\n")
    print("| device | measured | share that training uses |\n|---|---:|---:|")
    for dtype in dict.fromkeys((PRECISIONS[bench.settings.precision], torch.bfloat16)):
        throughput = matrix_throughput(bench, dtype)
        name = str(dtype).removeprefix("torch.")
        print(f"| matrix product, {name} | {throughput / 1e12:.3g} TFLOP/s | {flops / from_disk / throughput:.1%} |")
    throughput = memory_throughput(bench)
    print(f"| copy in memory | {throughput / 1e9:.4g} GB/s | {traffic / from_disk / throughput:.1%} |")
    print(f"| peak memory | {f'{peak_bytes / 1e9:.2f} GB' if peak_bytes else 'not measured on a CPU'} | |")


if __name__ == "__main__":
    Command(Settings, main)()
