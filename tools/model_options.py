"""Options that the commands for models share, each defined once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.config.flags import at_least, check_image_size, image_size_option, option, path, plain_name, switch
from utils.config.paths import ROOT


def project_option(folder: str) -> Any:
    """The field of ``--project``: a folder below the repository."""
    return option(str(ROOT / folder), path, "--project", "folder of the runs")


@dataclass(frozen=True, kw_only=True)
class ModelCommandOptions:
    """Base of the options of a command that runs a model. Raises InputError naming the flag of a wrong value."""

    imgsz: int | None = image_size_option("side of the images in pixels")
    batch_size: int = option(1, int, "--batch-size", "images per call")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one", may_be_empty=True)
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        check_image_size(self.imgsz)
        at_least("--batch-size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class ModelRunOptions(ModelCommandOptions):
    """As ``ModelCommandOptions``, for a command that writes a run folder."""

    project: str = project_option("runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_name(self.name)
