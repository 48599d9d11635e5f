"""How fast train.py trains, as a ratio to forward and backward alone of the same model on fixed tensors, in one run.

python tests/benchmarks/end_to_end.py my.yaml [--models yolov5n yolov5n_dynamic] [--imgsz 320 640] [--rounds 5]
    [--workers 8] [--threads N] [--cache] [--each]

Training is whole epochs of train.py's own loop: reading images, mosaic and augmentation in loader processes, loss,
optimizer, average of the weights, console. What it is compared to is a process of its own with the model as torch
makes it: contiguous, float32, all threads, no loss, nothing to load. Both take turns, an epoch's worth of steps each.

Two ratios: by the clock, and by the time of the processors that all processes of either side took together. With one
thread the second one holds on a busy machine too; with more, threads that wait for a processor spin and count as well.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.yolo import Model
from train import train_epoch
from utils.config.options import TrainOptions
from utils.training.setup import prepare


def serve_plain_steps(pipe: Connection, name: str, nc: int, batch: int, imgsz: int) -> None:
    """Run as many steps as asked for and answer with the seconds they took, until asked for none."""
    model = Model(f"{name}.yaml", nc=nc).train()
    images = torch.rand(batch, 3, imgsz, imgsz)
    while count := pipe.recv():
        start = time.perf_counter(), time.process_time()
        for _ in range(count):
            torch.stack([level.square().mean() for level in model(images)]).sum().backward()
            model.zero_grad(set_to_none=True)
        pipe.send((time.perf_counter() - start[0], time.process_time() - start[1]))


def clocks(workers: list[int]) -> np.ndarray:
    """[2] seconds by the clock, and of the processors for this process and its loader processes."""
    used = time.process_time()
    for worker in workers:
        fields = Path(f"/proc/{worker}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in the programs and in the system
    return np.array([time.perf_counter(), used])


def measure(name: str, imgsz: int, folder: Path, options: argparse.Namespace) -> None:
    """Print a line for one model and size."""
    session = prepare(
        TrainOptions(
            cfg=f"{name}.yaml", data=options.data, imgsz=imgsz, batch_size=options.batch, workers=options.workers,
            epochs=options.rounds + 2, project=str(folder), noautoanchor=True, cache="ram" if options.cache else None,
        )
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    child = context.Process(
        target=serve_plain_steps, args=(end, name, session.model.nc, options.batch, imgsz), daemon=True
    )
    child.start()
    pipe.send(2)
    pipe.recv()
    train_epoch(session, 0)  # starts the loader processes
    steps, images = len(session.loader), len(session.records)
    workers = [process.pid for process in multiprocessing.active_children() if process.pid not in (None, child.pid)]
    plain, ours = [], []
    for epoch in range(1, options.rounds + 1):
        pipe.send(steps)
        plain.append(np.array(pipe.recv()) / (steps * options.batch))
        session.sampler.set_epoch(epoch)
        start = clocks(workers)
        train_epoch(session, epoch)
        ours.append((clocks(workers) - start) / images)
    pipe.send(0)
    child.join()
    ratios = np.array(plain) / np.array(ours)  # [rounds, 2]
    low, middle, high = np.percentile(ratios, [25, 50, 75], axis=0)
    rates = [float(1 / np.median(np.array(side)[:, 0])) for side in (ours, plain)]
    print(
        f"{name:<20}{imgsz:>5}  {rates[0]:>6.1f} images/s, plain steps {rates[1]:>6.1f}: ratio {middle[0]:.2f} ± "
        f"{(high - low)[0] / 2:.2f}, of processor time {middle[1]:.2f} ± {(high - low)[1] / 2:.2f}"
        + (f"  {ratios.round(2).tolist()}" if options.each else ""),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--models", nargs="+", default=["yolov5n", "yolov5n_dynamic"])
    parser.add_argument("--imgsz", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of the training; 0: torch's own choice")
    parser.add_argument("--cache", action="store_true", help="keep decoded images in memory (--cache ram)")
    parser.add_argument("--each", action="store_true", help="show the ratio of every round")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}")
    for name in options.models:
        for imgsz in options.imgsz:
            with tempfile.TemporaryDirectory() as folder:
                measure(name, imgsz, Path(folder), options)


if __name__ == "__main__":
    main()
