"""Weak scaling: two processes with a core each against one, the same work for each process.

    python benchmarks/weak_scaling.py      # two minutes on two idle cores; writes results/weak_scaling.{json,md}

Each process is bound to one core and trains a sharded-by-one, replicated model on packs of its own, gradients
averaged by gloo, exactly as `pretrain` does. Runs alternate: one process on each core in turn, then two together.
A ratio is the rate of two over the sum of the rates that their cores had alone; the median of all is said.
Aimed at 0.9; below 0.8 falls short.
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.queues import Queue
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def train(rank: int, size: int, core: int, port: int, options: argparse.Namespace, told: Queue) -> None:
    """One rank on one core: tells its seconds a step."""
    import mum
    from pretrain.optim import OptimConfig, build_optimizer
    from pretrain.parallel import ParallelConfig, World, prepare_model, process_group

    os.sched_setaffinity(0, {core})
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    world = World(rank=rank, size=size, local_rank=rank, local_size=size)
    config = ParallelConfig(threads=1)
    with process_group(world, torch.device("cpu"), config) as mesh:
        torch.manual_seed(0)
        model = prepare_model(mum.create_model(options.model), config, mesh)
        optimizer = build_optimizer(model, OptimConfig())
        generator = torch.Generator().manual_seed(rank)
        pixels = (options.images, 3, options.size, options.size)
        images = torch.randint(256, pixels, dtype=torch.uint8, generator=generator)
        views = [6] * (options.images // 6)
        start = 0.0
        for step in range(options.steps + 2):
            if step == 2:
                torch.distributed.barrier()
                start = time.perf_counter()
            model(images, views).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        told.put((time.perf_counter() - start) / options.steps)


def seconds_a_step(cores: list[int], options: argparse.Namespace) -> float:
    """The slowest rank's seconds a step, with a process on each of the cores."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    ranks = [
        context.Process(target=train, args=(rank, len(cores), core, port, options, told))
        for rank, core in enumerate(cores)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise SystemExit("a process failed: see above")
    return max(told.get() for _ in ranks)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mum_vittiny_patch8")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--images", type=int, default=48, help="a step and process, in scenes of 6")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        print("not measured: two cores are needed, and an operating system that binds processes to them")
        return
    load = os.getloadavg()[0]
    ratios = []
    for _ in range(options.repetitions):
        alone = [seconds_a_step([core], options) for core in cores]
        together = seconds_a_step(cores, options)
        ratios.append((2 / together) / sum(1 / seconds for seconds in alone))
        print(
            f"alone {alone[0]:.3f} s and {alone[1]:.3f} s a step, together {together:.3f} s: {ratios[-1]:.3f}"
        )
    median = statistics.median(ratios)
    about = (
        f"{options.model}, {options.images} images of {options.size} px a process and step, torch "
        f"{torch.__version__}, load {load:.1f} at the start"
    )
    text = f"{median:.3f} of ideal from 1 to 2 processes (median of {len(ratios)}; bar 0.9, short below 0.8)"
    print(text)
    if not options.no_write:
        figures = {"about": about, "ratios": ratios, "median": median}
        (RESULTS / "weak_scaling.json").write_text(json.dumps(figures, indent=1) + "\n")
        listed = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        (RESULTS / "weak_scaling.md").write_text(f"# Weak scaling\n\n{about}.\n\n{text}: {listed}.\n")


if __name__ == "__main__":
    main()
