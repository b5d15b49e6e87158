"""What a picture costs on a CPU: torch, ONNX Runtime with the exported file, and a dense convolution with as many operations.

    python benchmarks/onnx_speed.py [--backbones convnext_atto] [--rounds 20] [--threads 1]

All in one process, one after another in every round, on the same pictures; see benchmarks/README.md.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from material import machine, spread
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_galaxy import GalaxyConfig, GalaxyForVotes
from hf_galaxy.command_line import Command
from hf_galaxy.errors import BadInput
from hf_galaxy.models.export import export_onnx
from hf_galaxy.reports.run_record import RunRecord

PACKAGES = ["hf_galaxy", "torch", "onnxruntime", "onnx", "onnxscript", "timm"]
DENSE = 256, 28, 4  # channels, side and pictures of the convolution
AT_LEAST = 0.05  # seconds that each way is repeated for in a round
TORCH, ONNX, LIMIT = "torch", "ONNX Runtime", "dense convolution"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure models of votes with fresh weights, each way in turn, over and over."""

    backbones: tuple[str, ...] = (
        "mobilenetv3_small_050", "resnet10t", "convnext_atto", "tf_efficientnet_lite0", "vit_tiny_patch16_224",
    )  # fmt: skip
    """Timm architectures."""
    image_sizes: tuple[int, ...] = (64, 224)
    """Sides of the pictures in pixels."""
    batches: tuple[int, ...] = (1, 32)
    """Pictures at once."""
    threads: tuple[int, ...] = (1, 2)
    """Of torch and of ONNX Runtime. With one, times are CPU times; with more they are wall times, and other work shows."""
    rounds: int = 10
    """In each, every way is taken in turn."""


def ways(model: torch.nn.Module, file: Path, images: torch.Tensor, threads: int) -> dict[str, Callable]:
    """Name -> one run of it: the whole model on all the images; and a dense convolution."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would keep the cores busy while they wait, when it is torch's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    channels, side, batch = DENSE
    dense, maps = (
        torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        torch.randn(batch, channels, side, side),
    )
    array = images.numpy()
    return {
        TORCH: lambda: model(pixel_values=images),
        ONNX: lambda: session.run(None, {"pixel_values": array}),
        LIMIT: lambda: dense(maps),
    }


def measure(functions: dict[str, Callable], threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for one run of each, in each round."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    repeats, times = {}, {name: [] for name in functions}
    for name, do in functions.items():
        do()  # what is allocated or rearranged at first use
        start = clock()
        do()
        repeats[name] = 1 + int(AT_LEAST / max(clock() - start, 1e-6))
    for _ in range(rounds):
        for name, do in functions.items():
            do()  # into the caches again what the one before has driven out
            start = clock()
            for _ in range(repeats[name]):
                do()
            times[name].append((clock() - start) / repeats[name])
    return times


def operations(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations for all the images, a multiply-add counting 2."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:  # fused attention is not counted
        model(pixel_values=images)
    return counted.get_total_flops()


def row(times: dict[str, list[float]], flops: int, batch: int) -> list[str]:
    """The cells of one measurement: what a picture takes, ratios within a round, and the share of the limit."""
    per_picture = [spread([1000 * seconds / batch for seconds in times[name]], 2) for name in (TORCH, ONNX)]
    faster = [slow / fast for slow, fast in zip(times[TORCH], times[ONNX], strict=True)]
    channels, side, pictures = DENSE
    limits = [seconds * flops / (2 * 9 * channels**2 * side**2 * pictures) for seconds in times[LIMIT]]
    shares = [
        f"{median(limit / taken for limit, taken in zip(limits, times[name], strict=True)):.0%}"
        for name in (TORCH, ONNX)
    ]
    return [*per_picture, f"**{spread(faster, 2)}**", f"{1000 * median(limits) / batch:.2f}", *shares]


@torch.inference_mode()
def main(settings: Settings) -> None:
    if min(*settings.image_sizes, *settings.batches, *settings.threads, settings.rounds) < 1:
        raise BadInput("--image-sizes, --batches, --threads and --rounds must be at least 1")
    print(
        f"Models of the votes of GZ2, float32; median (least to most) of {settings.rounds} rounds; CPU time with 1 thread, "
        f"wall time with more. The limit: as many operations in a 3 x 3 convolution of {DENSE[0]} channels.\n\n"
        f"{machine(*PACKAGES)}\n"
    )
    columns = ["backbone", "px", "MFLOP", "batch", "threads", "torch, ms per picture", "ONNX Runtime, ms per picture"]
    columns += ["torch / ONNX Runtime", "limit, ms", "limit / torch", "limit / ONNX Runtime"]
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
    record = RunRecord(command="", settings={}, dataset={"title": "none"})
    for backbone, size in product(settings.backbones, settings.image_sizes):
        print(f"measuring {backbone}, {size} px ...", file=sys.stderr)
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            with torch.inference_mode(False):  # whose weights torch would not export
                model = GalaxyForVotes(GalaxyConfig(backbone=backbone, tree="gz2", image_size=size)).eval()
                export_onnx(model, record, file)
            for batch, threads in product(settings.batches, settings.threads):
                torch.set_num_threads(threads)
                images = torch.rand(batch, 3, size, size)
                flops = operations(model, images)
                times = measure(ways(model, file, images, threads), threads, settings.rounds)
                about = [backbone, size, f"{flops / batch / 1e6:.0f}", batch, threads]
                print(f"| {' | '.join(map(str, about + row(times, flops, batch)))} |", flush=True)


if __name__ == "__main__":
    Command(Settings, main)()
