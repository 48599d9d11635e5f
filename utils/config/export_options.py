"""The options of ``export.py``."""

from __future__ import annotations

from dataclasses import dataclass, fields

from utils.config.flags import Named, at_least, fraction, image_sides, image_size_option, one_of, option, path, switch
from utils.core.errors import InputError, suggestion
from utils.core.nms_defaults import CONF_THRES, IOU_THRES

AXES = ("batch", "height", "width")  # of the input, that can be free in an exported file
FORMS = ("auto", "A", "A1", "B", "F", "M")  # see models/dynamic_convolution.py
EXPORT_FORMATS = (
    *("torchscript", "onnx", "openvino", "engine", "coreml", "saved_model", "pb", "tflite", "ncnn", "executorch"),
    *("pt2", "aoti", "static", "yolov5"),
)
# Formats that v6.1 names and this program does not make -> why, and how to get there.
UNAVAILABLE_FORMATS = {
    "edgetpu": "the Edge TPU takes files that are 8-bit throughout, in which this detector loses its objects; its "
    "compiler is on no package index (a file compiled elsewhere runs: detect.py --weights NAME_edgetpu.tflite)",
    "tfjs": "not made by this program, which could not run it beside PyTorch; tensorflowjs_converter --input_format "
    "tf_saved_model NAME_saved_model NAME_web_model makes it of a SavedModel (--include saved_model)",
}
# Formats in which an option has a meaning: with those of the first table, others are refused; with those of the second
# an option that none of the formats uses is reported.
_REFUSED_ELSEWHERE = {"nms": ("onnx",), "train": ("torchscript", "onnx"), "int8": ("onnx", "openvino", "tflite")}
_NEW_GRAPHS = EXPORT_FORMATS[: EXPORT_FORMATS.index("static")]  # all but checkpoints
_USED_BY: dict[str, tuple[str, ...]] = {
    "optimize": ("torchscript",),
    "simplify": ("onnx",),
    "opset": ("onnx",),
    "workspace": ("engine",),
    "venvs": ("tflite", "saved_model", "pb"),
    "half": (*_NEW_GRAPHS, "yolov5"),
    "dynamic": _NEW_GRAPHS,
    "dynamic_axes": _NEW_GRAPHS,
}
_INT8_WITHOUT_IMAGES = {"tflite"}  # only the weights are stored so
_OF_NMS = frozenset({"agnostic_nms", "topk_per_class", "topk_all", "iou_thres", "conf_thres"})


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Named):
    """Options of ``export.py``. Raises InputError naming the flag when a value is out of range."""

    data: str = option("", path, "--data", "data yaml: adds the mAP of every file; calibration of --int8")
    weights: tuple[str, ...] = option(
        (), path, "--weights", "checkpoints, each for itself; none: the newest best.pt below runs/train", nargs="+"
    )
    download: bool = switch("--download", "fetch official weights such as yolov5n.pt if they are missing")
    imgsz: tuple[int, ...] = image_size_option("image size in pixels: one side, or h w", nargs="+")
    batch_size: int = option(1, int, "--batch-size", "images per call of a file with a fixed batch")
    device: str = option("cpu", str, "--device", "cpu, or the number of a GPU", may_be_empty=True)
    half: bool = switch("--half", "half precision")
    inplace: bool = switch("--inplace", "without effect: the head never works in place")
    train: bool = switch(
        "--train", "norms not folded and raw predictions in place of boxes, to continue training elsewhere"
    )
    optimize: bool = switch("--optimize", "TorchScript: rewrite the graph for phones")
    int8: bool = switch("--int8", "ONNX, OpenVINO: 8-bit convolutions, scales measured on --data; tflite: weights")
    dynamic: bool = switch("--dynamic", "any batch, height and width; ExecuTorch, engine: up to 8 images of --imgsz")
    dynamic_axes: tuple[str, ...] = option(
        (), str, "--dynamic-axes", "only these axes free: batch, height, width", nargs="+"
    )
    simplify: bool = switch("--simplify", "ONNX: simplify the graph (onnxslim)")
    opset: int = option(12, int, "--opset", "ONNX: opset version; 18 and more use the exporter on torch.export")
    verbose: bool = switch("--verbose", "print what the exporters print")
    workspace: int = option(4, int, "--workspace", "engine: memory for the search of TensorRT in GB")
    nms: bool = switch("--nms", "ONNX: NMS inside, output x1 y1 x2 y2 confidence class")
    agnostic_nms: bool = switch("--agnostic-nms", "with --nms: boxes of different classes suppress each other")
    topk_per_class: int = option(100, int, "--topk-per-class", "with --nms: most detections of one class in an image")
    topk_all: int = option(100, int, "--topk-all", "with --nms: most detections in one image, rows of the output")
    iou_thres: float = option(IOU_THRES, float, "--iou-thres", "with --nms: IoU above which two boxes are one object")
    conf_thres: float = option(CONF_THRES, float, "--conf-thres", "with --nms: drop detections below this confidence")
    include: tuple[str, ...] = option(
        ("torchscript", "onnx"), str, "--include", f"formats: {', '.join(EXPORT_FORMATS)}", nargs="+"
    )
    dynamic_form: str = option(
        "auto", str, "--dynamic-form", "how dynamic layers are computed; auto: what suits each format", choices=FORMS
    )
    output: str = option("", path, "--output", "folder for the files; without it: beside the weights")
    venvs: str = option(
        "", path, "--venvs", "folder of the environments litert and tf; without it: $YOLOV5_VENVS, else .venvs here"
    )
    cache_dir: str = option("", path, "--cache-dir", "with --data: folder for the label cache, for read-only data")
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    @property
    def free_axes(self) -> tuple[str, ...]:
        """The axes of the input that any number fits."""
        return tuple(axis for axis in AXES if axis in self.dynamic_axes or (self.dynamic and not self.dynamic_axes))

    def idle(self) -> list[str]:
        """A line for each option that was given and changes nothing beside the others."""
        lines = []
        for item in fields(self):
            name, flag = item.name, item.metadata["flag"].names[0]
            if name not in self.given or getattr(self, name) == item.default:
                continue
            formats = _USED_BY.get(name)
            if name == "inplace":
                lines.append(f"{flag} has no effect: the head never works in place")
            elif name in _OF_NMS and not self.nms:
                lines.append(f"{flag} has no effect without --nms")
            elif name == "cache_dir" and not self.data:
                lines.append(f"{flag} has no effect without --data")
            elif formats and not set(formats) & set(self.include):
                lines.append(
                    f"{flag} has no effect on --include {' '.join(self.include)}: it is for {', '.join(formats)}"
                )
        return lines

    def __post_init__(self) -> None:
        self._check_formats()
        image_sides(self.imgsz)
        limits = [("--batch-size", self.batch_size, 1), ("--opset", self.opset, 11), ("--workspace", self.workspace, 1)]
        limits += [("--topk-per-class", self.topk_per_class, 1), ("--topk-all", self.topk_all, 1)]
        for flag, value, low in limits:
            at_least(flag, value, low)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        one_of("--dynamic-form", self.dynamic_form, FORMS)
        for axis in self.dynamic_axes:
            one_of("--dynamic-axes", axis, AXES)
        self._check_combinations()

    def _check_formats(self) -> None:
        if not self.include:
            raise InputError(f"--include names no format; known are {', '.join(EXPORT_FORMATS)}")
        for name in self.include:
            if name not in (*EXPORT_FORMATS, *UNAVAILABLE_FORMATS):
                close = suggestion(name, (*EXPORT_FORMATS, *UNAVAILABLE_FORMATS))
                raise InputError(f"--include {name}: no such format{close} (known: {', '.join(EXPORT_FORMATS)})")

    def _check_combinations(self) -> None:
        if self.half and self.int8:
            raise InputError("--half and --int8 exclude each other: the values are stored one way or the other")
        if self.train and (self.nms or self.half or self.int8):
            raise InputError("--train gives raw predictions for training: drop --nms, --half and --int8")
        if self.int8 and not self.data and not set(self.include) <= _INT8_WITHOUT_IMAGES:
            raise InputError("--int8 measures its scales on images: name the data set with --data")
        for name, able in _REFUSED_ELSEWHERE.items():
            others = [other for other in self.include if other in EXPORT_FORMATS and other not in able]
            if getattr(self, name) and others:
                raise InputError(f"--{name} is there for {', '.join(able)}, not for --include {' '.join(others)}")
        if self.dynamic_form == "A1" and (self.batch_size > 1 or "batch" in self.free_axes):
            raise InputError("--dynamic-form A1 computes one image: drop --batch-size and a free batch")
        if self.dynamic_form == "A" and "batch" in self.free_axes:
            raise InputError(
                "--dynamic-form A has the batch as its group count, so a file would run with one batch only; use B or F"
            )
