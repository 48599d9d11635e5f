"""Detect objects in an image by an OpenVINO model: no torch, no code of this repository.

python export.py --weights best.pt --include openvino
pip install openvino opencv-python-headless
python examples/openvino_image.py best_openvino_model image.jpg

The model is the folder that export.py names, or the .xml file in it.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino


def main(model: str, image_file: str, conf: float = 0.25) -> None:
    file = next(iter(sorted(Path(model).glob("*.xml"))), Path(model))
    if not file.is_file():
        sys.exit(f"{model}: neither an OpenVINO folder nor an .xml file")
    try:
        network = openvino.Core().read_model(file)
        names, imgsz = (json.loads(network.get_rt_info(["model_info", key]).value) for key in ("names", "imgsz"))
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{model}: not a model of export.py ({str(error).strip().splitlines()[-1]})")
    image = cv2.imread(image_file) if Path(image_file).is_file() else None
    if image is None:
        sys.exit(f"{image_file}: no readable image")
    height, width = imgsz
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.full((height, width, 3), 114, np.uint8)  # grey around the image, as in training
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size) if scale != 1 else image
    images = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    rows = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images])[0][0]
    scores = rows[:, 5:] * rows[:, 4:5]  # [N, classes]; rows: x, y, w, h, objectness, class scores
    kinds, confidence = scores.argmax(1), scores.max(1)
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], 1)  # x1, y1, w, h
    kept = cv2.dnn.NMSBoxesBatched(corners.tolist(), confidence.tolist(), kinds.tolist(), conf, 0.45)
    for index in np.array(kept).flatten():
        x1, y1, w, h = corners[index]
        corners_px = (np.array([[x1, y1], [x1 + w, y1 + h]]) - (left, top)) / scale
        inside = corners_px.clip(0, (image.shape[1], image.shape[0])).round(1)
        print(names[kinds[index]], round(float(confidence[index]), 3), *inside.flatten().tolist())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
