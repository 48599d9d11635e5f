"""Scripts of the kind people wrote around YOLOv5 v6.1, run as they are."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import detect
import train
import val
from utils.checkpoint import load_checkpoint
from utils.core.errors import InputError

DETECTOR = """
import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from models.common import DetectMultiBackend
from models.experimental import attempt_load
from utils.augmentations import letterbox
from utils.general import (LOGGER, check_img_size, check_imshow, colorstr, increment_path, non_max_suppression,
                           print_args, scale_coords, set_logging, xyxy2xywh)
from utils.plots import Annotator, colors, save_one_box
from utils.torch_utils import select_device, time_sync

parser = argparse.ArgumentParser()
parser.add_argument("--weights")
parser.add_argument("--source")
parser.add_argument("--out")
parser.add_argument("--backend", action="store_true")
opt = parser.parse_args()
print_args("camera", opt)

device = select_device("cpu")
half = device.type != "cpu"
if opt.backend:
    model = DetectMultiBackend(opt.weights, device=device, dnn=False, data=None)
    stride, names, pt = model.stride, model.names, model.pt
    if pt:
        model.model.half() if half else model.model.float()
    model.warmup(imgsz=(1, 3, 64, 64), half=half)
else:
    model = attempt_load(opt.weights, map_location=device)
    stride = int(model.stride.max())
    names = model.module.names if hasattr(model, "module") else model.names
imgsz = check_img_size(64, s=stride)

img0 = cv2.imread(opt.source)
img = letterbox(img0, imgsz, stride=stride, auto=True)[0]
img = img[:, :, ::-1].transpose(2, 0, 1)
img = np.ascontiguousarray(img)
img = torch.from_numpy(img).to(device)
img = img.half() if half else img.float()
img /= 255.0
if img.ndimension() == 3:
    img = img.unsqueeze(0)

t1 = time_sync()
with torch.no_grad():
    pred = model(img, augment=False, visualize=False) if opt.backend else model(img, augment=False)[0]
t2 = time_sync()
pred = non_max_suppression(pred, 0.25, 0.45, None, False, max_det=20)

rows = []
for i, det in enumerate(pred):
    gn = torch.tensor(img0.shape)[[1, 0, 1, 0]]
    imc = img0.copy()
    annotator = Annotator(img0, line_width=2, example=str(names))
    if len(det):
        det[:, :4] = scale_coords(img.shape[2:], det[:, :4], img0.shape).round()
        for c in det[:, -1].unique():
            LOGGER.info(f"{(det[:, -1] == c).sum()} {names[int(c)]}")
        for *xyxy, conf, cls in reversed(det):
            xywh = (xyxy2xywh(torch.tensor(xyxy).view(1, 4)) / gn).view(-1).tolist()
            rows.append([int(cls), *xywh, float(conf)])
            annotator.box_label(xyxy, f"{names[int(cls)]} {conf:.2f}", color=colors(int(cls), True))
            save_one_box(xyxy, imc, file=Path(opt.out) / "crops" / f"{names[int(cls)]}.jpg", BGR=True)
    img0 = annotator.result()
cv2.imwrite(str(Path(opt.out) / "drawn.png"), img0)
LOGGER.info(colorstr("bold", f"done in {t2 - t1:.3f}s"))
(Path(opt.out) / "rows.json").write_text(json.dumps(rows))
"""

SERVER = """
import json
import sys

import cv2
import torch
from PIL import Image

repository, weights, source, out = sys.argv[1:]
model = torch.hub.load(repository, "custom", path=weights, source="local", device="cpu")
model.conf = 0.25
model.iou = 0.45
model.max_det = 20
model.classes = [1]
results = model(Image.open(source), size=64)
results.print()
answer = []
for x1, y1, x2, y2, conf, cls in results.xyxy[0].cpu().numpy():
    answer.append({"name": model.names[int(cls)], "box": [int(x1), int(y1), int(x2), int(y2)], "conf": float(conf)})
both = model([source, cv2.imread(source)[..., ::-1]], size=64)
assert len(both) == 2 and len(both.xywhn[1]) == len(answer)
for im in both.render():
    Image.fromarray(im).save(out + "/drawn.png")
results.save(save_dir=out + "/saved")
results.crop(save_dir=out + "/cropped")
with open(out + "/answer.json", "w") as f:
    json.dump(answer, f)
"""

TRACKER = """
import logging
import os
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here / "yolov5")]

import numpy as np
import torch

from yolov5.models.common import DetectMultiBackend
from yolov5.utils.dataloaders import IMG_FORMATS, VID_FORMATS, LoadImages, LoadScreenshots, LoadStreams
from yolov5.utils.general import (LOGGER, Profile, check_file, check_img_size, check_imshow, check_requirements,
                                  colorstr, cv2, increment_path, non_max_suppression, print_args, scale_boxes,
                                  strip_optimizer, xyxy2xywh)
from yolov5.utils.plots import Annotator, colors, save_one_box
from yolov5.utils.torch_utils import select_device, smart_inference_mode, time_sync

logging.getLogger().removeHandler(logging.getLogger().handlers[0])  # of two handlers one is enough


@smart_inference_mode()
def run(weights, source, imgsz=(64, 64), half=True):
    assert Path(source).suffix[1:] in IMG_FORMATS + VID_FORMATS
    out = increment_path(Path("tracks") / "exp", exist_ok=False)
    out.mkdir(parents=True)
    device = select_device("cpu")
    model = DetectMultiBackend(weights, device=device, dnn=False, data=None, fp16=half)
    stride, names, pt = model.stride, model.names, model.pt
    imgsz = check_img_size(imgsz, s=stride)
    dataset = LoadImages(source, img_size=imgsz, stride=stride, auto=pt, vid_stride=1)
    model.warmup(imgsz=(1 if pt or model.triton else 1, 3, *imgsz))
    seen, dt = 0, (Profile(device=device), Profile(device=device), Profile(device=device))
    for path, im, im0s, vid_cap, s in dataset:
        with dt[0]:
            im = torch.from_numpy(im).to(model.device)
            im = im.half() if model.fp16 else im.float()
            im /= 255
            if len(im.shape) == 3:
                im = im[None]
        with dt[1]:
            pred = model(im, augment=False, visualize=False)
        with dt[2]:
            pred = non_max_suppression(pred, 0.25, 0.45, None, False, max_det=9)
        for det in pred:
            seen += 1
            annotator = Annotator(im0s.copy(), line_width=2, example=str(names))
            det[:, :4] = scale_boxes(im.shape[2:], det[:, :4], im0s.shape).round()
            for *xyxy, conf, cls in reversed(det):
                annotator.box_label(xyxy, names[int(cls)], color=colors(int(cls), True))
            cv2.imwrite(str(out / Path(path).name), annotator.result())
            LOGGER.info(f"{s}{len(det)} tracked, {dt[1].dt * 1e3:.1f} ms, {dict(names)[0]}")
    LOGGER.info("%.1f ms %.1f ms %.1f ms" % tuple(x.t / seen * 1e3 for x in dt))


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
"""

SCORER = """
import json
import sys

import val

weights, data, out = sys.argv[1:]
results, maps, times = val.run(
    data=data, weights=weights, batch_size=2, imgsz=64, conf_thres=0.001, iou_thres=0.6, device="cpu", workers=0,
    project=out, name="scores", exist_ok=True,
)
mp, mr, map50, map, *losses = results
json.dump({"map50": map50, "map": map, "classes": maps.tolist(), "times": len(times)}, open(out + "/scores.json", "w"))
"""

TRAINER = """
import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from models.yolo import Model
from utils.autoanchor import check_anchors
from utils.datasets import create_dataloader
from utils.general import (box_iou, check_dataset, check_img_size, check_yaml, colorstr, init_seeds,
                           labels_to_class_weights, non_max_suppression, one_cycle, scale_coords, xywh2xyxy)
from utils.loss import ComputeLoss
from utils.metrics import ConfusionMatrix, ap_per_class, fitness
from utils.plots import output_to_target, plot_images, plot_labels
from utils.torch_utils import ModelEMA, de_parallel, select_device

data, hyp, out = sys.argv[1:]
init_seeds(1)
device = select_device("cpu")
data_dict = check_dataset(data)
nc, names = int(data_dict["nc"]), data_dict["names"]
with open(hyp, errors="ignore") as f:
    hyp = yaml.safe_load(f)
model = Model(check_yaml("yolov5n.yaml"), ch=3, nc=nc, anchors=hyp.get("anchors")).to(device)
gs = max(int(model.stride.max()), 32)
imgsz = check_img_size(64, gs, floor=gs * 2)
optimizer = torch.optim.SGD(model.parameters(), lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=True)
lf = one_cycle(1, hyp["lrf"], 2)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lf)
ema = ModelEMA(model)
train_loader, dataset = create_dataloader(data_dict["train"], imgsz, 2, gs, False, hyp=hyp, augment=True, cache=None,
                                          rect=False, rank=-1, workers=0, image_weights=False, quad=False,
                                          prefix=colorstr("train: "), shuffle=True)
val_loader = create_dataloader(data_dict["val"], imgsz, 2, gs, False, hyp=hyp, cache=None, rect=True, rank=-1,
                               workers=0, pad=0.5, prefix=colorstr("val: "))[0]
mlc = int(np.concatenate(dataset.labels, 0)[:, 0].max())
assert mlc < nc
check_anchors(dataset, model=model, thr=hyp["anchor_t"], imgsz=imgsz)
model.nc, model.hyp, model.names = nc, hyp, names
model.class_weights = labels_to_class_weights(dataset.labels, nc).to(device) * nc
compute_loss = ComputeLoss(model)
losses = []
for epoch in range(2):
    model.train()
    for i, (imgs, targets, paths, _) in enumerate(train_loader):
        imgs = imgs.to(device, non_blocking=True).float() / 255
        pred = model(imgs)
        loss, loss_items = compute_loss(pred, targets.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        losses.append(loss_items.tolist())
        if i == 0:
            plot_images(imgs, targets, paths, Path(out) / f"train_batch{epoch}.jpg")
    scheduler.step()
ema.update_attr(model, include=["yaml", "nc", "hyp", "names", "stride", "class_weights"])

model = de_parallel(ema.ema).eval()
iouv = torch.linspace(0.5, 0.95, 10)
confusion_matrix, stats, seen = ConfusionMatrix(nc=nc), [], 0
for batch_i, (im, targets, paths, shapes) in enumerate(val_loader):
    im = im.to(device).float() / 255
    nb, _, height, width = im.shape
    with torch.no_grad():
        pred, train_out = model(im)
    targets[:, 2:] *= torch.Tensor([width, height, width, height])
    pred = non_max_suppression(pred, 0.0, 0.6, labels=[], multi_label=True, agnostic=False)
    plot_images(im, output_to_target(pred), paths, Path(out) / f"val_batch{batch_i}_pred.jpg", names)
    for si, found in enumerate(pred):
        labels = targets[targets[:, 0] == si, 1:]
        shape, seen = shapes[si][0], seen + 1
        predn = found.clone()
        scale_coords(im[si].shape[1:], predn[:, :4], shape, shapes[si][1])
        tbox = xywh2xyxy(labels[:, 1:5])
        scale_coords(im[si].shape[1:], tbox, shape, shapes[si][1])
        labelsn = torch.cat((labels[:, 0:1], tbox), 1)
        confusion_matrix.process_batch(predn, labelsn)
        iou = box_iou(labelsn[:, 1:], predn[:, :4])
        correct = (iou.max(0).values[:, None] > iouv) & (predn[:, 5:6] == labelsn[0, 0])
        stats.append((correct, found[:, 4], found[:, 5], labels[:, 0]))
stats = [torch.cat(x, 0).numpy() for x in zip(*stats)]
tp, fp, p, r, f1, ap, ap_class = ap_per_class(*stats, plot=True, save_dir=out, names=dict(enumerate(names)))
confusion_matrix.plot(save_dir=out, names=names)
score = float(fitness(np.array([[p.mean(), r.mean(), ap[:, 0].mean(), ap.mean()]]))[0])
with open(Path(out) / "result.json", "w") as f:
    json.dump({"losses": losses, "seen": seen, "score": score, "classes": ap_class.tolist()}, f)
"""

Script = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8))
    return file


@pytest.fixture
def run_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_handlers_restored: None
) -> Iterator[Script]:  # fmt: skip
    """``run_script(text, *arguments)``: as ``python script.py arguments`` in an empty folder, which is returned."""
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(text: str, *arguments: Any) -> Path:
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")
        return folder

    yield run


@pytest.mark.parametrize("way", [(), ("--backend",)], ids=["attempt_load", "DetectMultiBackend"])
def test_a_script_with_its_own_detection_loop(
    run_script: Script, eager_weights: Path, image: Path, way: tuple[str, ...]
) -> None:
    out = run_script(DETECTOR, "--weights", eager_weights, "--source", image, "--out", image.parent / "out", *way)
    rows = json.loads((out / "rows.json").read_text(encoding="utf-8"))
    assert len(rows) == 20
    assert all(0 <= value <= 1 for row in rows for value in row[1:])
    assert {row[0] for row in rows} <= {0, 1}
    drawn, before = cv2.imread(str(out / "drawn.png")), cv2.imread(str(image))
    assert (drawn != before).any()
    assert list((out / "crops").iterdir())


def test_a_tracker_with_the_repository_as_its_folder_yolov5(
    eager_weights: Path, image: Path, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "track.py").write_text(TRACKER, encoding="utf-8")
    (tmp_path / "yolov5").symlink_to(ROOT, target_is_directory=True)
    command = [sys.executable, "track.py", str(eager_weights), str(image)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, lines
    assert "9 tracked" in lines[0]
    assert lines[0].endswith("ant")
    assert cv2.imread(str(tmp_path / "tracks/exp/image.png")).shape == (96, 128, 3)


def test_a_script_around_the_hub(run_script: Script, eager_weights: Path, image: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    out = run_script(SERVER, repository, eager_weights, image, image.parent / "out")
    answer = json.loads((out / "answer.json").read_text(encoding="utf-8"))
    assert {row["name"] for row in answer} == {"bee"}
    assert all(0 <= row["box"][0] <= row["box"][2] <= 128 for row in answer)
    assert (out / "saved/image.jpg").is_file()
    assert (out / "cropped/crops/bee/image.jpg").is_file()


def test_a_script_that_scores_a_model(run_script: Script, eager_weights: Path, toy: Path) -> None:
    out = run_script(SCORER, eager_weights, toy, toy.parent)
    scores = json.loads((toy.parent / "scores.json").read_text(encoding="utf-8"))
    assert 0 <= scores["map"] <= scores["map50"] <= 1
    assert np.mean(scores["classes"]) == pytest.approx(scores["map"])
    assert scores["times"] == 3
    assert list(out.iterdir()) == []  # everything goes below project


def test_a_script_with_a_training_and_a_scoring_loop_of_its_own(run_script: Script, toy: Path, tmp_path: Path) -> None:
    hyp = Path(__file__).resolve().parents[2] / "data/hyps/hyp.scratch-low.yaml"
    out = run_script(TRAINER, toy, hyp, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["seen"] == 4 and result["classes"] == [0, 1] and 0 <= result["score"] <= 1
    assert np.isfinite(result["losses"]).all() and np.shape(result["losses"]) == (4, 3)
    for name in ("train_batch0.jpg", "val_batch0_pred.jpg", "PR_curve.png", "confusion_matrix.png"):
        assert (tmp_path / name).is_file()
    assert list(out.iterdir()) == []


def test_detection_from_python(
    eager_weights: Path, image: Path, tmp_path: Path, log_handlers_restored: None
) -> None:  # fmt: skip
    detect.run(weights=eager_weights, source=image, imgsz=64, device="cpu", project=tmp_path, save_txt=True)
    assert (tmp_path / "exp/image.png").is_file()
    assert (tmp_path / "exp/labels/image.txt").is_file()


def test_training_from_python(toy: Path, tmp_path: Path, log_handlers_restored: None) -> None:
    train.run(
        data=toy, cfg="yolov5n.yaml", epochs=1, batch_size=4, imgsz=64, device="cpu", workers=0, project=tmp_path,
        noautoanchor=True,
    )  # fmt: skip
    assert load_checkpoint(tmp_path / "exp/weights/best.pt").names == ["red", "green"]


def test_a_misspelt_keyword_stops_a_run(log_handlers_restored: None) -> None:
    with pytest.raises(InputError, match="did you mean 'imgsz'"):
        val.run(img_sz=64)
