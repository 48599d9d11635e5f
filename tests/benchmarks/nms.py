"""How long suppression takes against the plain way, image by image, as a ratio in one run.

    python tests/benchmarks/nms.py [--weights best.pt --images folder] [--repeats 7]

The plain way is v6.1's scheme written from the formula: per image, no objectness for boxes with a side below 2 px,
confidence = objectness x class score, all rows over the limit sorted, the best 30000 kept, boxes of class c moved by
c x 7680 px, one ``torchvision.ops.nms``, the first 300. Times are CPU time of this process, so that others on the
machine count little. Without
weights the predictions are random: a few thousand clustered candidates per image, as a trained model has them, and a
batch in which every cell of every class passes, as it is in the first epoch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import nms

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.core.boxes import xywh2xyxy
from utils.core.nms import non_max_suppression

CONF, IOU = 0.001, 0.6
KINDS = {
    "class-aware": {},
    "agnostic": {"agnostic": True},
    "multi-label": {"multi_label": True},
    "multi-label, max-det 100": {"multi_label": True, "max_det": 100},
}


def plain(prediction: Tensor, agnostic: bool = False, multi_label: bool = False, max_det: int = 300) -> list[Tensor]:
    """One image after the other, everything sorted, one call of nms each."""
    found = []
    for rows in prediction:
        large = (rows[:, 2:4] >= 2).all(1)
        rows = rows[large & (rows[:, 4] > CONF)]
        confidence = rows[:, 5:] * rows[:, 4:5]
        boxes = xywh2xyxy(rows[:, :4])
        if multi_label:
            row, kind = (confidence > CONF).nonzero(as_tuple=True)
            best = confidence[row, kind]
        else:
            best, kind = confidence.max(1)
            row = (best > CONF).nonzero(as_tuple=True)[0]
            best, kind = best[row], kind[row]
        order = best.argsort(descending=True)[:30000]
        boxes, best, kind = boxes[row[order]], best[order], kind[order].float()
        moved = boxes if agnostic else boxes + kind[:, None] * 7680
        keep = nms(moved, best, IOU)[:max_det]
        found.append(torch.cat([boxes[keep], best[keep, None], kind[keep, None]], 1))
    return found


def like_a_trained_model(image_count: int, generator: torch.Generator, nc: int = 80) -> Tensor:
    """[B, 25200, 5 + nc]: twenty objects an image with a cloud of candidates each, and background below the limit."""
    prediction = torch.rand(image_count, 25200, 5 + nc, generator=generator) * 1e-3
    for image in prediction:
        for place in torch.randint(0, 25200 - 100, (20,), generator=generator).tolist():
            cloud = image[place : place + 100]
            cloud[:, :4] = torch.rand(4, generator=generator) * 400 + 60
            cloud[:, :4] += torch.randn(100, 4, generator=generator) * 15
            cloud[:, 4] = torch.rand(100, generator=generator) ** 3
            cloud[:, 5:] = torch.rand(100, nc, generator=generator) ** 40
    return prediction


def like_a_young_model(image_count: int, generator: torch.Generator, nc: int = 80) -> Tensor:
    """[B, 25200, 5 + nc]: everything passes."""
    prediction = torch.rand(image_count, 25200, 5 + nc, generator=generator) * 0.5 + 0.1
    prediction[..., :2] *= 1000
    prediction[..., 2:4] = prediction[..., 2:4] * 80 + 8
    return prediction


def of_model(weights: str, folder: str, image_count: int) -> Tensor:
    """Predictions of a checkpoint on the first images of a folder, letterboxed to squares."""
    from models.fuse import fuse
    from utils.checkpoint import load_model
    from utils.core.files import find_images
    from utils.core.image import letterbox, read_image, to_model_input

    model, _ = load_model(weights)
    fuse(model.eval())
    answers = []
    with torch.no_grad():
        for file in find_images([folder])[:image_count]:
            image = letterbox(read_image(file), (640, 640), auto=False)[0]
            chw = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
            answers.append(model(to_model_input(chw[None], torch.device("cpu")))[0])
    return torch.cat(answers)


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    """The fastest of several."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    if options.weights:
        sets = {"model": (of_model(options.weights, options.images, options.batch), options.repeats)}
    else:
        sets = {
            "trained": (like_a_trained_model(options.batch, generator), options.repeats),
            "young": (like_a_young_model(2, generator), 1),
        }
    print(f"{torch.get_num_threads()} threads, conf {CONF}, IoU {IOU}; ms per image")
    print(f"{'predictions':<12}{'pictures':>9}  {'kind':<26}{'plain':>9}{'ours':>9}{'ours/plain':>12}  same")
    for name, (prediction, repeats) in sets.items():
        for image_count in (1, len(prediction)):
            part = prediction[:image_count]
            for kind, settings in KINDS.items():
                theirs, mine = plain(part, **settings), non_max_suppression(part, CONF, IOU, **settings)
                same = sum(a.shape == b.shape and torch.equal(a, b) for a, b in zip(theirs, mine))
                slow = best_seconds(lambda p=part, s=settings: plain(p, **s), repeats)
                fast = best_seconds(lambda p=part, s=settings: non_max_suppression(p, CONF, IOU, **s), repeats)
                ms = 1e3 / image_count
                print(
                    f"{name:<12}{image_count:>9}  {kind:<26}{slow * ms:>9.2f}{fast * ms:>9.2f}{fast / slow:>12.2f}"
                    f"  {same}/{image_count}", flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
