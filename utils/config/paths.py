"""Where the repository lies, and how a yaml named on the command line is found."""

from __future__ import annotations

from pathlib import Path

from utils.core.errors import suggestion

ROOT = Path(__file__).resolve().parents[2]
TRAIN_RUNS = ROOT / "runs/train"  # of training; the newest best.pt below is used where --weights is not given


def find_yaml(name: str | Path, *folders: str) -> Path:
    """Return the absolute path of a yaml given by path or by its bare name.

    Looked for as given, then below the repository root, then in each of ``folders`` of the repository, so that
    ``coco128.yaml`` means ``data/coco128.yaml`` from any working directory.

    Raises:
        FileNotFoundError: no such file; the message lists every place tried, and the yaml there whose name is closest.
    """
    given = Path(name).expanduser()
    tried = [Path.cwd() / given, ROOT / given, *(ROOT / folder / given for folder in folders)]
    tried = list(dict.fromkeys(path.resolve() for path in tried))
    for path in tried:
        if path.is_file():
            return path
    known = [file.name for folder in dict.fromkeys(path.parent for path in tried) for file in folder.glob("*.y*ml")]
    hint = suggestion(given.name, known)
    raise FileNotFoundError(f"'{name}' not found; tried {', '.join(map(str, tried))}{hint}")
