"""The names that scripts written for YOLOv5 import, and the module that defines each: the table of docs/en/from-v61.md.

A name is looked up when a script imports it, so no module of the program imports the compatibility layer. A module with
such names ends in

    def __getattr__(name: str) -> Any:
        return import_served("models.common", name)

or, when it has no other code, consists of ``__all__, __getattr__ = only_served(__name__)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# Module -> module that defines names of it ("": the module itself) -> these names, those of v6.1 and common later ones.
# ``name=other``: it has the name ``other`` there.
SERVED: dict[str, dict[str, str]] = {
    "detect": {
        "": "main run",
        "utils.compat.scripts": "parse_opt=parse_detect_opt",
        "models.common": "DetectMultiBackend",
        "utils.datasets": "IMG_FORMATS LoadImages LoadStreams VID_FORMATS",
        "utils.general": (
            "LOGGER check_file check_img_size check_imshow colorstr cv2 increment_path non_max_suppression "
            "print_args scale_coords strip_optimizer xyxy2xywh"
        ),
        "utils.plots": "Annotator colors save_one_box",
        "utils.torch_utils": "select_device time_sync",
    },
    "export": {
        "": "main run",
        "utils.compat.scripts": "parse_opt=parse_export_opt",
        "utils.compat.export": (
            "export_coreml export_engine export_formats export_onnx export_openvino export_torchscript"
        ),
        "models.common": "Conv",
        "models.experimental": "attempt_load",
        "models.yolo": "Detect",
        "utils.torch_utils": "select_device",
        "utils.general": "LOGGER check_dataset check_img_size colorstr file_size print_args url2file",
        "utils.datasets": "LoadImages",
    },
    "models.common": {
        "": "Bottleneck C3 Concat Conv DWConv SPPF autopad",
        "utils.inference.backends": "DetectMultiBackend",
        "utils.inference.autoshape": "AutoShape",
        "utils.inference.results": "Detections",
        "models.blocks": (
            "BottleneckCSP C3Ghost C3SPP C3TR Classify Contract Expand Focus GhostBottleneck GhostConv SPP "
            "TransformerBlock TransformerLayer"
        ),
        "utils.general": (
            "LOGGER check_requirements check_suffix check_version colorstr cv2 increment_path make_divisible "
            "non_max_suppression scale_boxes scale_coords xywh2xyxy xyxy2xywh"
        ),
        "utils.datasets": "exif_transpose letterbox",
        "utils.plots": "Annotator colors save_one_box",
        "utils.torch_utils": "copy_attr time_sync",
    },
    "models.experimental": {
        "": "CrossConv MixConv2d Sum",
        "models.ensemble": "Ensemble",
        "utils.inference.attempt_load": "attempt_load",
        "utils.downloads": "attempt_download",
    },
    "models.yolo": {
        "": "Detect DetectionModel Model parse_model",
        "models.common": (
            "AutoShape Bottleneck BottleneckCSP C3 C3Ghost C3SPP C3TR Classify Concat Contract Conv DWConv "
            "DetectMultiBackend Detections Expand Focus GhostBottleneck GhostConv SPP SPPF autopad"
        ),
        "models.experimental": "CrossConv Ensemble MixConv2d Sum",
        "utils.autoanchor": "check_anchor_order",
        "utils.general": "LOGGER check_version check_yaml make_divisible print_args",
        "utils.torch_utils": (
            "copy_attr fuse_conv_and_bn initialize_weights model_info scale_img select_device time_sync"
        ),
    },
    "train": {
        "": "main run",
        "utils.compat.scripts": "parse_opt=parse_train_opt",
        "models.yolo": "Model",
        "models.experimental": "attempt_load",
        "utils.general": (
            "LOGGER check_dataset check_img_size colorstr fitness get_latest_run increment_path init_seeds "
            "labels_to_class_weights labels_to_image_weights one_cycle strip_optimizer"
        ),
        "utils.torch_utils": "EarlyStopping ModelEMA de_parallel select_device",
        "utils.autoanchor": "check_anchors",
        "utils.callbacks": "Callbacks",
        "utils.datasets": "create_dataloader",
        "utils.loggers": "Loggers",
        "utils.loss": "ComputeLoss",
        "utils.plots": "plot_evolve plot_labels",
    },
    "utils": {
        "": "notebook_init",
    },
    "utils.activations": {
        "utils.compat.activations": "AconC FReLU Hardswish MemoryEfficientMish MetaAconC Mish SiLU",
    },
    "utils.augmentations": {
        "utils.compat.augmentations": ("Albumentations augment_hsv copy_paste mixup random_perspective"),
        "utils.core.image": "letterbox",
    },
    "utils.autoanchor": {
        "utils.compat.autoanchor": "PREFIX check_anchor_order check_anchors kmean_anchors",
    },
    "utils.autobatch": {
        "utils.compat.autobatch": "autobatch check_train_batch_size",
    },
    "utils.benchmarks": {
        "tools.benchmark": "main parse_opt run",
    },
    "utils.callbacks": {
        "utils.core.callbacks": "Callbacks",
    },
    "utils.datasets": {
        "utils.compat.datasets": (
            "IMG_FORMATS LoadImages LoadScreenshots LoadStreams LoadWebcam VID_FORMATS autosplit exif_transpose "
            "img2label_paths"
        ),
        "utils.compat.dataloaders": "InfiniteDataLoader LoadImagesAndLabels create_dataloader",
        "utils.core.image": "letterbox",
    },
    "utils.downloads": {
        "utils.compat.downloads": "attempt_download safe_download",
    },
    "utils.general": {
        "utils.compat.general": (
            "DATASETS_DIR LOGGER LOGGING_NAME NCOLS NUM_THREADS Profile TQDM_BAR_FORMAT apply_classifier clean_str "
            "clip_boxes=clip_coords clip_coords coco80_to_coco91_class colorstr cv2 download emojis file_size "
            "get_latest_run increment_path init_seeds labels_to_class_weights labels_to_image_weights make_divisible "
            "methods one_cycle print_args scale_boxes=scale_coords scale_coords set_logging strip_optimizer try_except "
            "url2file yaml_save"
        ),
        "utils.compat.general_checks": (
            "check_dataset check_file check_git_status check_imshow check_requirements check_suffix check_version "
            "check_yaml is_ascii is_colab is_docker"
        ),
        "utils.checkpoint.transfer": "intersect_dicts",
        "utils.config.paths": "ROOT",
        "utils.config.sizes": "check_img_size",
        "utils.core.boxes": (
            "box_iou resample_segments segment2box segments2boxes xyn2xy xywh2xyxy xywhn2xyxy xyxy2xywh xyxy2xywhn"
        ),
        "utils.core.files": "yaml_load=read_yaml",
        "utils.core.nms": "non_max_suppression",
        "utils.inference.window": "is_jupyter=in_notebook is_notebook=in_notebook",
        "utils.metrics.ap": "fitness",
    },
    "utils.loggers": {
        "utils.compat.loggers": "Loggers",
    },
    "utils.loss": {
        "": "BCEBlurWithLogitsLoss FocalLoss QFocalLoss smooth_BCE",
        "utils.compat.loss": "ComputeLoss",
    },
    "utils.metrics": {
        "": "ConfusionMatrix bbox_ioa bbox_iou box_iou compute_ap fitness wh_iou",
        "utils.compat.metrics": "ap_per_class",
    },
    "utils.plots": {
        "": "plot_evolve plot_labels plot_results",
        "utils.compat.plots": (
            "Annotator Colors colors feature_visualization output_to_target plot_images plot_one_box plot_val_study "
            "save_one_box"
        ),
    },
    "utils.torch_utils": {
        "models.fuse": "fuse_conv_and_bn=fuse_conv_bn",
        "models.yolo": "initialize_weights=set_norm_defaults",
        "utils.training.early_stop": "EarlyStopping",
        "utils.compat.torch_utils": (
            "ModelEMA copy_attr de_parallel is_parallel model_info profile prune scale_img select_device "
            "smart_inference_mode smart_optimizer sparsity time_sync torch_distributed_zero_first"
        ),
    },
    "val": {
        "": "main run",
        "utils.compat.scripts": "parse_opt=parse_val_opt",
        "utils.compat.metrics": "save_one_json save_one_txt",
        "utils.metrics.matching": "process_batch=match_as_v61",
        "models.common": "DetectMultiBackend",
        "utils.general": (
            "LOGGER box_iou check_dataset check_img_size non_max_suppression scale_coords xywh2xyxy xyxy2xywh"
        ),
        "utils.metrics": "ConfusionMatrix ap_per_class",
        "utils.plots": "output_to_target plot_images plot_val_study",
        "utils.datasets": "create_dataloader",
        "utils.torch_utils": "select_device time_sync",
        "utils.callbacks": "Callbacks",
    },
}

# Names of later releases for modules that v6.1 has.
ALIASES = {"utils.dataloaders": "utils.datasets"}

# Names of v6.1 that only the original's own modules import, and what to use instead. Importing one is an error.
NOT_SERVED: dict[str, dict[str, str]] = {
    "models.yolo": {"FILE ROOT": "utils.general.ROOT"},
    "utils.augmentations": {
        "box_candidates": "utils.datasets.augment.geometry.learnable_boxes",
        "cutout": "the hyper-parameter cutout of train.py",
        "hist_equalize": "cv2.equalizeHist or cv2.createCLAHE",
        "replicate": "the hyper-parameter copy_paste of train.py",
    },
    "utils.benchmarks": {"FILE ROOT": "utils.general.ROOT"},
    "utils.datasets": {
        "HELP_URL": "docs/en/data.md",
        "_RepeatSampler": "torch.utils.data.DataLoader(persistent_workers=True)",
        "create_folder": "shutil.rmtree and os.makedirs",
        "dataset_stats": "python -m tools.check",
        "exif_size": "exif_transpose(image).size",
        "extract_boxes": "detect.py --save-crop",
        "flatten_recursive": "python -m tools.convert",
        "get_hash": "hashlib",
        "verify_image_label": "python -m tools.check",
    },
    "utils.downloads": {
        "gdrive_download get_token gsutil_getsize": "the tools of the cloud: nothing is exchanged with one here",
    },
    "utils.general": {
        "CONFIG_DIR user_config_dir": "a folder of your choice: no settings are stored",
        "FILE": "utils.general.ROOT",
        "FONT check_font": "nothing: fonts are chosen by the text",
        "Timeout": "signal.setitimer",
        "VERBOSE": "set_logging(verbose=False)",
        "WorkingDirectory": "contextlib.chdir or os.chdir",
        "check_online": "socket.create_connection",
        "check_python": "sys.version_info",
        "is_chinese": "re.search('[\u4e00-\u9fff]', text)",
        "is_kaggle is_pip": "os.environ and __file__",
        "is_writeable": "os.access(folder, os.W_OK)",
        "print_mutation": "train.py --evolve",
    },
    "utils.metrics": {
        "plot_mc_curve": "utils.plots.plot_metric_curve",
        "plot_pr_curve": "utils.plots.plot_pr_curve",
    },
    "utils.plots": {
        "RANK": "os.environ['RANK']",
        "butter_lowpass_filtfilt": "scipy.signal.filtfilt",
        "check_pil_font": "PIL.ImageFont.truetype",
        "hist2d": "numpy.histogram2d",
        "plot_lr_scheduler": "results.csv, which has the learning rates",
        "plot_targets_txt plot_val_txt": "labels.jpg of the run folder",
        "profile_idetection": "matplotlib",
    },
    "utils.torch_utils": {
        "date_modified": "os.path.getmtime",
        "device_count": "torch.cuda.device_count",
        "find_modules": "model.modules()",
        "git_describe": "git describe",
    },
}


def served_names(module: str) -> list[str]:
    """All names that scripts can import from ``module``, sorted."""
    entries = SERVED[ALIASES.get(module, module)].values()
    return sorted(entry.partition("=")[0] for names in entries for entry in names.split())


def import_served(module: str, name: str) -> Any:
    """Return the object that scripts import from ``module`` as ``name`` and another module defines.

    Raises:
        AttributeError: no such name.
        ImportError: a name of v6.1 that is not served; names the replacement. (Python replaces the message of an
            AttributeError in ``from module import name``.)
    """
    original = ALIASES.get(module, module)
    for home, names in SERVED[original].items():
        for entry in names.split() if home else ():
            served, _, other = entry.partition("=")
            if served == name:
                return getattr(importlib.import_module(home), other or name)
    for names, instead in NOT_SERVED.get(original, {}).items():
        if name in names.split():
            raise ImportError(f"{module}.{name} of YOLOv5 is not served here; use {instead}")
    raise AttributeError(f"module '{module}' has no attribute '{name}'")


def only_served(module: str) -> tuple[list[str], Callable[[str], Any]]:
    """``__all__`` and ``__getattr__`` of a module that has nothing but served names."""
    return served_names(module), lambda name: import_served(module, name)


def names_table() -> str:
    """The list as a Markdown table, for docs/."""
    rows = ["| module | names |", "|---|---|"]
    for module in sorted([*SERVED, *ALIASES]):
        names = ", ".join(f"`{name}`" for name in served_names(module))
        rows.append(f"| `{module}` | {f'as `{ALIASES[module]}`' if module in ALIASES else names} |")
    return "\n".join(rows) + "\n"
