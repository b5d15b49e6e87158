"""What are starting weights worth on tasks they have not seen? Tasks x starts x shares of the labels x modes x seeds.

    python scripts/benchmark_downstream.py --tasks public_sets --backbone tf_efficientnet_lite0 --image-size 64 --crop 0.727         --starts random imagenet=weights/efficientnet_lite0_imagenet.pth gz2_classes=runs/gz2_classes         --reference imagenet --out results/downstream --at-once 2

Each cell leaves a small file in --out/cells; those that are there are not measured again, so the same command goes on, also with
more starts, tasks, shares or seeds, and several of them share out the work. At the end, and with --page at once, the page of
results is written.
"""

from hf_galaxy.commands.benchmark import command

if __name__ == "__main__":
    command()
