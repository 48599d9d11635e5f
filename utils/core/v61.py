"""The names that scripts written for YOLOv5 import, and where each is made. The README's table is this list.

A name is looked up when a script asks for it, so that no module of the program imports the compatibility layer: each
module of the list ends in

    def __getattr__(name: str) -> Any:
        return find("models.common", name)
"""

from __future__ import annotations

import importlib
from typing import Any

# Module -> the module that makes names of it ("": itself) -> these names. Those of v6.1 and the usual later ones.
SERVED: dict[str, dict[str, str]] = {
    "detect": {
        "": "main run",
        "utils.compat.detect": "parse_opt",
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
        "utils.compat.export": (
            "export_coreml export_edgetpu export_engine export_formats export_onnx export_openvino export_pb "
            "export_saved_model export_tfjs export_tflite export_torchscript parse_opt"
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
        "": "Detect DetectionModel FILE Model ROOT parse_model",
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
        "utils.compat.train": "parse_opt",
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
        "utils.compat.augmentations": (
            "Albumentations augment_hsv box_candidates copy_paste cutout hist_equalize letterbox mixup "
            "random_perspective replicate"
        ),
    },
    "utils.autoanchor": {
        "utils.compat.autoanchor": "PREFIX check_anchor_order check_anchors kmean_anchors",
    },
    "utils.autobatch": {
        "utils.compat.autobatch": "autobatch check_train_batch_size",
    },
    "utils.benchmarks": {
        "tools.benchmark": "FILE ROOT main parse_opt run",
    },
    "utils.callbacks": {
        "utils.core.callbacks": "Callbacks",
    },
    "utils.datasets": {
        "utils.compat.datasets": (
            "IMG_FORMATS LoadImages LoadScreenshots LoadStreams LoadWebcam VID_FORMATS exif_size img2label_paths "
            "letterbox"
        ),
        "utils.compat.datasets.training": (
            "HELP_URL InfiniteDataLoader LoadImagesAndLabels _RepeatSampler create_dataloader"
        ),
        "utils.compat.datasets.tools": (
            "autosplit create_folder dataset_stats exif_transpose extract_boxes flatten_recursive get_hash "
            "verify_image_label"
        ),
    },
    "utils.downloads": {
        "utils.core.downloads": "attempt_download gdrive_download get_token gsutil_getsize safe_download",
    },
    "utils.general": {
        "utils.compat.general": (
            "CONFIG_DIR DATASETS_DIR FILE FONT NCOLS NUM_THREADS Profile ROOT Timeout VERBOSE WorkingDirectory "
            "apply_classifier box_iou check_dataset check_file check_font check_git_status check_img_size "
            "check_imshow check_online check_python check_requirements check_suffix check_version check_yaml "
            "clean_str clip_boxes clip_coords coco80_to_coco91_class colorstr download emojis file_size fitness "
            "get_latest_run increment_path init_seeds intersect_dicts is_ascii is_chinese is_colab is_docker "
            "is_kaggle is_pip is_writeable labels_to_class_weights labels_to_image_weights make_divisible methods "
            "non_max_suppression one_cycle print_args print_mutation resample_segments scale_boxes scale_coords "
            "segment2box segments2boxes set_logging strip_optimizer try_except url2file user_config_dir xyn2xy "
            "xywh2xyxy xywhn2xyxy xyxy2xywh xyxy2xywhn"
        ),
        "utils.compat.general.later": (
            "LOGGER LOGGING_NAME TQDM_BAR_FORMAT cv2 is_jupyter is_notebook yaml_load yaml_save"
        ),
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
        "utils.compat.plots_figures": "plot_mc_curve plot_pr_curve",
    },
    "utils.plots": {
        "": "RANK plot_evolve plot_labels plot_results",
        "utils.compat.plots": "Annotator colors plot_one_box save_one_box",
        "utils.compat.plots_figures": (
            "Colors butter_lowpass_filtfilt check_pil_font feature_visualization hist2d output_to_target "
            "plot_images plot_lr_scheduler plot_targets_txt plot_val_study plot_val_txt profile_idetection"
        ),
    },
    "utils.torch_utils": {
        "utils.compat.torch_utils": (
            "EarlyStopping ModelEMA copy_attr date_modified de_parallel device_count find_modules fuse_conv_and_bn "
            "git_describe initialize_weights is_parallel model_info profile prune scale_img select_device sparsity "
            "smart_inference_mode smart_optimizer time_sync torch_distributed_zero_first"
        ),
    },
    "val": {
        "": "main run",
        "utils.compat.val": "parse_opt process_batch save_one_json save_one_txt",
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


def served(module: str) -> list[str]:
    """All names that scripts can import from ``module``, sorted."""
    return sorted(name for names in SERVED[ALIASES.get(module, module)].values() for name in names.split())


def find(module: str, name: str) -> Any:
    """What scripts import from ``module`` as ``name`` and another module makes.

    Raises:
        AttributeError: no such name.
    """
    for home, names in SERVED[ALIASES.get(module, module)].items():
        if home and name in names.split():
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module '{module}' has no attribute '{name}'")


def markdown_table() -> str:
    """The list as a Markdown table, for the README."""
    rows = ["| module | names |", "|---|---|"]
    for module in sorted([*SERVED, *ALIASES]):
        same = f"as `{ALIASES[module]}`" if module in ALIASES else ", ".join(f"`{name}`" for name in served(module))
        rows.append(f"| `{module}` | {same} |")
    return "\n".join(rows) + "\n"
