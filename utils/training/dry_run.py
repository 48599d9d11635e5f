"""Training steps on noise, to measure time and memory of a model before it is trained."""

from __future__ import annotations

import copy
import gc
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from models.memory_format import fastest_memory_format, set_memory_format
from models.yolo import Model
from utils.config.hyp import Hyp
from utils.loss.detection import DetectionLoss, scale_gains

BOXES = 8  # random boxes in every image
MIB = 2**20


class TrainingStep:
    """An optimizer step on the same batch at every call.

    Args:
        model: hardly changed by a call.
        images: [B, C, H, W] in 0..1, on the device of the model.
        targets: [N, 6] image, class, xywh as fractions, on the same device.
        amp: mixed precision; None: on a GPU, as in training.

    Attributes:
        forward: computes the predictions; the model, unless it is replaced.
    """

    def __init__(self, model: Model, images: Tensor, targets: Tensor, amp: bool | None = None) -> None:
        self.model = model.train().requires_grad_(True)
        self.forward: Callable[[Tensor], Any] = model
        self.images, self.targets = images, targets
        head = model.head
        self.loss = DetectionLoss(
            head.anchors, head.stride, head.nc, scale_gains(Hyp(), head.nl, head.nc, images.shape[-1])
        )
        # A rate this low keeps the weights almost constant; with weights that diverge the speed would change.
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.937, nesterov=True)
        cuda = images.device.type == "cuda"
        self.amp = cuda if amp is None else amp
        self.scaler = torch.amp.GradScaler("cuda", init_scale=1.0, enabled=cuda and self.amp)  # 1: nothing overflows

    def __call__(self) -> None:
        with torch.autocast(self.images.device.type, enabled=self.amp):
            predictions = self.forward(self.images)
        self.scaler.scale(self.loss(predictions, self.targets).total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def random_images(model: Model, batch: int, imgsz: int, device: torch.device) -> Tensor:
    """Return [batch, C, imgsz, imgsz] noise in 0..1, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, model.yaml["ch"], imgsz, imgsz, generator=generator).to(device)


def random_targets(batch: int, nc: int, device: torch.device) -> Tensor:
    """Return [batch * BOXES, 6] image, class, xywh, the same at every call: sides of 5 to 40 % of the image's."""
    generator = torch.Generator().manual_seed(0)
    count = batch * BOXES
    image = torch.arange(batch).repeat_interleave(BOXES).float()[:, None]
    size = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
    centre = size / 2 + torch.rand(count, 2, generator=generator) * (1 - size)
    classes = torch.randint(nc, (count, 1), generator=generator).float()
    return torch.cat([image, classes, centre, size], dim=1).to(device)


def training_step(model: Model, batch: int, imgsz: int, device: torch.device, amp: bool | None = None) -> TrainingStep:
    """Make a step of ``model``, which is moved to ``device`` in the memory format of training."""
    layout = fastest_memory_format(device)
    set_memory_format(model.to(device), layout)
    images = random_images(model, batch, imgsz, device).contiguous(memory_format=layout)
    return TrainingStep(model, images, random_targets(batch, model.nc, device), amp)


def training_memory(model: Model, batch: int, imgsz: int, device: torch.device, amp: bool | None = None) -> float:
    """Return the most MiB that training a copy of ``model`` takes, over two steps: the first one makes the momenta."""

    def train() -> None:
        step = training_step(copy.deepcopy(model), batch, imgsz, device, amp)
        step()
        step()

    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        train()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    return tensor_memory(train) / MIB


def tensor_memory(run: Callable[[], None]) -> float:
    """Return the most bytes of tensors on the CPU that exist at one time while ``run`` makes them."""
    gc.collect()  # the profiler warns of older tensors that are freed meanwhile
    level = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = "99"  # otherwise it warns of the missing GPU
    try:
        with tempfile.TemporaryDirectory() as folder:
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
                run()
            trace = Path(folder) / "trace.json"
            record.export_chrome_trace(str(trace))
            events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    finally:
        if level is None:
            del os.environ["KINETO_LOG_LEVEL"]
        else:
            os.environ["KINETO_LOG_LEVEL"] = level
    memory = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    totals = [event["args"]["Total Allocated"] for event in memory]
    before = totals[0] - memory[0]["args"]["Bytes"]
    return float(max(totals) - before)
