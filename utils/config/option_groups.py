"""Groups of the options in ``--help``, by field name; the same options stand in the same group of every command."""

from __future__ import annotations

OTHER = "other options"
OPTION_GROUPS: dict[str, tuple[str, ...]] = {
    "model": (
        "weights", "cfg", "hyp", "freeze", "modules", "trust", "dnn", "include", "output", "plan", "jobs", "phases",
    ),
    "data": (
        "data", "source", "task", "to", "pool", "names", "fractions", "kfold", "stratify", "group_by", "n", "decode",
        "images", "imgsz", "study_sizes", "single_cls", "classes", "rect", "cache", "cache_dir", "workers",
        "vid_stride", "reconnect", "annotations",
    ),
    "download": ("download", "allow_scripts", "download_limit", "bucket"),
    "training": (
        "epochs", "batch_size", "optimizer", "cos_lr", "label_smoothing", "patience", "noautoanchor", "seed", "resume",
        "multi_scale", "quad", "image_weights", "mosaic_from", "skip_nonfinite",
    ),
    "search for hyper-parameters": ("evolve", "evolve_sampler"),
    "device and precision": (
        "device", "half", "amp", "compile", "deterministic", "sync_bn", "local_rank", "int8", "inplace",
    ),
    "detections": (
        "conf_thres", "iou_thres", "max_det", "agnostic_nms", "augment", "slice", "overlap", "slice_only",
        "v61_matching",
    ),
    "formats": (
        "train", "optimize", "dynamic", "dynamic_axes", "dynamic_form", "simplify", "opset", "workspace", "nms",
        "topk_per_class", "topk_all", "venvs",
    ),
    "results": (
        "project", "name", "exist_ok", "nosave", "noval", "save_period", "save_steps", "save_txt", "save_conf",
        "save_hybrid", "save_crop", "save_csv", "save_json", "view_img", "visualize", "line_thickness", "hide_labels",
        "hide_conf", "verbose", "update", "report", "copy_images", "link", "markdown",
    ),
    "page": ("host", "allow_host", "port", "max_upload", "max_frames"),
    "loggers": (
        "tensorboard", "wandb", "entity", "upload_dataset", "bbox_interval", "artifact_alias", "mlflow",
    ),
}  # fmt: skip


def group_of(field: str) -> str:
    """The title of the group of an option."""
    return next((title for title, names in OPTION_GROUPS.items() if field in names), OTHER)
