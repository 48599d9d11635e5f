"""The commands and Python blocks of README.md and docs/en are run in a copy of the working tree, on small images.

The Chinese pages have the same code blocks (tests/test_docs.py). What is added to a command to make it quick, and what
is not run and why, is in the tables below.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="of POSIX")
ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"docs/en/{page.name}" for page in sorted((ROOT / "docs/en").glob("*.md")))]
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# Words added to a command, by script: small sizes, and no second process of a data loader.
ADDED = {
    "train.py": "--imgsz 64 --epochs 1 --batch-size 4 --workers 0 --device cpu",
    "val.py": "--imgsz 64 --batch-size 4 --workers 0 --device cpu",
    "detect.py": "--imgsz 64 --device cpu",
    "export.py": "--imgsz 64 --device cpu",
    "tools.preview": "--exist-ok",  # several pages name the same folder
    "tools.routing": "--imgsz 64 --workers 0 --device cpu",
    "tools.compare": "--imgsz 64 --repeats 1 --device cpu",
}
# Words replaced in a command: values that are a size of the work, and files of which there is another one in the test.
REPLACED = {
    "--epochs 400": "",
    "large.tif": "large.png",
    "best.pt --include yolov5": "yolov5n.pt --include yolov5",  # best.pt is a dynamic model here
}
# Not run: what a command begins with or contains, and why.
NOT_RUN = {
    "make ": "sets up an environment from the network",
    "pip install": "network",
    "-m venv": "network",
    "docker ": "needs Docker",
    "curl ": "asks the service of the line above, which is in tests/test_examples.py",
    "torchrun ": "several processes: tests/utils/training, and several machines",
    "--download": "network: tests of the download have a server of their own",
    "rtsp://": "needs a camera",
    "tools.app": "a service that does not end: tests/tools/app",
    "examples/serve.py": "a service that does not end: tests/test_examples.py",
    "--plan my_plan.yaml": "a study of several runs: tests/tools/study",
    "--evolve": "several runs: tests/e2e/test_evolve.py",
    "train.py --resume": "needs an interrupted run: tests/e2e",
    "train.py --wandb": "needs the package wandb",
    "train.py --mlflow": "needs the package mlflow",
    "train.py --tensorboard": "trains on the embedded set: tests/e2e/test_train_options.py",
    "train.py --cfg yolov5_dynamic.yaml": "the l-scale model takes minutes",
    "--modules examples/layers/cbam.py": "trains on the embedded set: tests/examples",
    "--task study": "images of up to 1536 px",
    "tools.benchmark": "exports every format: tests/tools/test_benchmark.py",
    "--include executorch": "needs the package executorch",
    "--include tflite": "needs an environment with litert-torch",
    "--include coreml": "slow: tests/utils/export/test_coreml.py",
    "--include ncnn": "slow: tests/utils/export/test_ncnn.py",
    "--int8 --data": "exports and calibrates for a minute: tests/utils/export/test_int8.py",
    "from_elsewhere.torchscript": "the file is of another program: tests/utils/inference/test_model_files.py",
    "--foreign": "needs weights of another program: tests/tools/test_routing.py",
    "instances_val.json": "a COCO file: tests/tools/test_convert.py",
}


def blocks(page: str, language: str) -> list[str]:
    found = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [code for marked, code in found if marked == language]


def commands(page: str) -> list[str]:
    """The lines of the shell blocks of a page, without comments."""
    lines = [re.sub(r"\s+#( .*)?$", "", line).strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line]


def reason(command: str) -> str | None:
    """Why a command is not run, or None."""
    return next((why for words, why in NOT_RUN.items() if words in command), None)


def quick(command: str) -> list[str]:
    """The words behind ``python`` of a command, made small."""
    for old, new in REPLACED.items():
        command = command.replace(old, new)
    words = shlex.split(command)
    assert words[0] == "python", command
    script = words[2] if words[1] == "-m" else words[1]
    if script == "val.py" and "--data" not in words:
        words += ["--data", "my.yaml"]  # otherwise the embedded set, of which best.pt has not the classes here
    return [*words[1:], *(ADDED.get(script, "").split() if "--help" not in words else [])]


def test_every_reason_not_to_run_a_command_has_a_command() -> None:
    listed = [command for page in PAGES for command in commands(page)]
    assert [words for words in NOT_RUN if not any(words in command for command in listed)] == []


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """A copy of the working tree with the files of a user that the commands name."""
    import cv2
    import torch

    from models.yolo import Model
    from utils.checkpoint import Checkpoint, save_checkpoint

    folder = tmp_path_factory.mktemp("docs") / "tree"
    skipped = shutil.ignore_patterns(".*", "tests", "docs", "runs", "site", "__pycache__", "*.pt")
    shutil.copytree(ROOT, folder, ignore=skipped)
    data = make_dataset(folder / "mine", n_train=6, n_val=4, nc=2, names=("cat", "dog"))
    for path in [*(folder / "mine").rglob("*.png"), *(folder / "mine").rglob("*.txt")]:
        path.rename(path.with_name(f"{path.parent.name}{path.stem}_0{path.suffix}"))  # a group for --group-by
    content = {**yaml.safe_load(data.read_text(encoding="utf-8")), "path": "mine"}
    (folder / "my.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    shutil.copytree(folder / "mine/images/val", folder / "images")
    shutil.copytree(folder / "mine/images/train", folder / "images/all")
    shutil.copytree(folder / "mine/labels/train", folder / "labels/all")
    image = cv2.resize(cv2.imread(str(folder / "images/val0_0.png")), (700, 700))
    cv2.imwrite(str(folder / "large.png"), image)
    for name in ("image.jpg", "a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / name), image[:64, :96])
    writer = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 64))
    for _ in range(3):
        writer.write(image[:64, :64])
    writer.release()
    shutil.copy(folder / "data/hyps/hyp.small.yaml", folder / "my-hyp.yaml")
    shutil.copy(folder / "models/yolov5n.yaml", folder / "my_model.yaml")
    (code,) = blocks("docs/en/layers.md", "python")
    (folder / "my_layers.py").write_text(code, encoding="utf-8")
    (code,) = blocks("docs/en/from-v61.md", "python")
    (folder / "from_v61.py").write_text(f"import torch\n\nimport train\nimport val\n\n{code}", encoding="utf-8")
    for name, cfg in (("yolov5n", "yolov5n.yaml"), ("best", "yolov5n_dynamic.yaml")):
        torch.manual_seed(0)
        model = Model(cfg, nc=2)
        facts = {"model_yaml": model.yaml, "nc": 2, "names": ["cat", "dog"], "stride": model.stride.tolist()}
        save_checkpoint(folder / f"{name}.pt", Checkpoint(**facts, model=dict(model.state_dict()), imgsz=64))
    for name in ("a.pt", "b.pt", "from_elsewhere.pt", "runs/train/exp/weights/best.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "best.pt", folder / name)
    return folder


def test_the_commands_and_python_blocks_of_the_pages_run(tree: Path, tmp_path: Path) -> None:
    """All in one process and its children: importing torch once per command would take minutes."""
    listed = dict.fromkeys(command for page in PAGES for command in commands(page))
    chosen = [*(command for command in listed if reason(command) is None), "python from_v61.py"]
    assert len(chosen) > 35
    (tmp_path / "commands.json").write_text(json.dumps([quick(command) for command in chosen]), encoding="utf-8")
    worker = [sys.executable, str(ROOT / "tests/docs/worker.py"), str(tmp_path / "commands.json")]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    subprocess.run(worker, cwd=tree, env=settings, check=True, timeout=600)
    codes = json.loads((tmp_path / "codes.json").read_text(encoding="utf-8"))
    assert len(codes) == len(chosen)
    logs = [(tmp_path / f"{number}.log").read_text(encoding="utf-8", errors="replace") for number in range(len(codes))]
    failed = [f"{line}: exit code {code}\n{log[-1500:]}" for line, code, log in zip(chosen, codes, logs) if code]
    assert not failed, "\n\n".join(failed)
