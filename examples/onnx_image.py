"""Detect objects in an image by an ONNX file and ONNX Runtime alone: no torch, no code of this repository.

python export.py --weights best.pt --include onnx --nms
pip install onnxruntime opencv-python-headless
python examples/onnx_image.py best.onnx image.jpg
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def main(model: str, image_file: str) -> None:
    try:
        session = onnxruntime.InferenceSession(Path(model).read_bytes(), providers=["CPUExecutionProvider"])
        about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    except Exception as error:  # the exceptions of ONNX Runtime have no common class
        sys.exit(f"{model}: not a model of export.py ({str(error).strip().splitlines()[-1]})")
    if not about.get("nms"):
        sys.exit(f"{model}: export it with --nms")
    image = cv2.imread(image_file) if Path(image_file).is_file() else None
    if image is None:
        sys.exit(f"{image_file}: no readable image")
    height, width = about["imgsz"]
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.full((height, width, 3), 114, np.uint8)  # grey around the image, as in training
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size) if scale != 1 else image
    images = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float16 if about["half"] else np.float32) / 255
    for x1, y1, x2, y2, confidence, kind in session.run(None, {session.get_inputs()[0].name: images})[0][0]:
        if confidence > 0:  # unused rows are zero
            corners = (np.array([[x1, y1], [x2, y2]]) - (left, top)) / scale
            inside = corners.clip(0, (image.shape[1], image.shape[0])).round(1)
            print(about["names"][int(kind)], round(float(confidence), 3), *inside.flatten().tolist())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
