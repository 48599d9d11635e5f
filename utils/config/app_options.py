"""The options of ``python -m tools.app``."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.flags import at_least, fraction, image_sides, image_size_option, option, path, switch
from utils.core.errors import InputError
from utils.core.nms_defaults import CONF_THRES, IOU_THRES, MAX_DET


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Options of ``python -m tools.app``. Raises InputError naming the flag when a value is out of range."""

    weights: str = option("", path, "--weights", "model file; without it: the newest best.pt below runs/train")
    data: str = option("", path, "--data", "data yaml with the class names, for a file that holds none")
    imgsz: tuple[int, ...] = image_size_option("image size in pixels: one side, or h w", nargs="+")
    conf_thres: float = option(CONF_THRES, float, "--conf-thres", "confidence that the page starts with")
    iou_thres: float = option(IOU_THRES, float, "--iou-thres", "IoU of NMS that the page starts with")
    max_det: int = option(MAX_DET, int, "--max-det", "most detections in one image that the page starts with")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one", may_be_empty=True)
    half: bool = switch("--half", "half precision on a GPU; bfloat16 of an OpenVINO model")
    host: str = option("127.0.0.1", str, "--host", "address to listen at; 0.0.0.0: all addresses of the machine")
    allow_host: tuple[str, ...] = option(
        (), str, "--allow-host", "further host names of this machine that browsers may use", nargs="+"
    )
    port: int = option(8000, int, "--port", "port to listen at; 0: a free one")
    max_upload: int = option(200, int, "--max-upload", "most MB of an image or video")
    max_frames: int = option(10_000, int, "--max-frames", "most frames of a video that are processed")
    trust: bool = switch("--trust", "open a model file that may run code of its maker")
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        image_sides(self.imgsz)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        for name in ("max_det", "max_upload", "max_frames"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port {self.port} is no port; allowed is 0 to 65535")
