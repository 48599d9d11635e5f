"""Odd command lines by the hundred, over all commands: each ends in time, with a usual exit code and at most one error.

python tests/fuzz/command_lines.py [--n 400] [--seed 0] [--user nobody] [--only detect]

Paths that are missing, locked, too long, not UTF-8, pipes, sockets, devices, folders, loops of links; files that are
empty, cut, huge, deeply nested; numbers that are none. Every line runs in a process forked from this one, which has
imported the commands. A line fails when it is still running after a minute, ends with another code than 0, 1 or 2,
shows a traceback, or has not exactly one line of error (code 0: none). Exits with 1 and names each line that fails.

``--user`` runs them as that user, for whom permissions hold; it needs root, and an interpreter that the user can read.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import random
import resource
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LIMIT_S, MEMORY = 60, 8 << 30
SMALL = ["--imgsz", "64", "--device", "cpu"]
OUT = ["--project", "out"]


@dataclass(frozen=True)
class Command:
    """A command: what is run, options that keep it small, those that take a path, a number."""

    target: str
    small: Sequence[str] = ()
    paths: Sequence[str] = ()
    numbers: Sequence[str] = ()
    given: dict[str, str] = field(default_factory=dict)  # valid values of what it cannot do without


DATA, MODEL = {"--data": "set/data.yaml"}, {"--weights": "tiny.pt"}
COMMANDS = (
    Command(
        "train.py",
        [*SMALL, "--epochs", "0", "--batch-size", "2", "--workers", "0", *OUT],
        ["--data", "--cfg", "--weights", "--hyp", "--resume", "--project", "--cache-dir", "--modules", "--name"],
        ["--epochs", "--batch-size", "--imgsz", "--workers", "--label-smoothing", "--freeze", "--seed", "--patience"],
        {**DATA, "--cfg": "yolov5n.yaml"},
    ),
    Command(
        "val.py",
        [*SMALL, "--batch-size", "2", "--workers", "0", *OUT],
        ["--data", "--weights", "--project", "--cache-dir", "--annotations", "--modules", "--name"],
        ["--imgsz", "--conf-thres", "--iou-thres", "--batch-size"],
        {**DATA, **MODEL},
    ),
    Command(
        "detect.py",
        [*SMALL, *OUT],
        ["--source", "--weights", "--data", "--project", "--modules", "--name"],
        ["--imgsz", "--conf-thres", "--max-det", "--classes", "--slice", "--line-thickness", "--vid-stride"],
        {"--source": "set/images/val", **MODEL},
    ),
    Command(
        "export.py",
        ["--imgsz", "64", "--include", "torchscript"],
        ["--weights", "--data", "--output", "--cache-dir", "--venvs"],
        ["--imgsz", "--batch-size", "--opset"],
        MODEL,
    ),
    Command("tools.profile", [*SMALL, "--repeats", "1"], ["--cfg", "--weights", "--modules"], ["--batch-size"]),
    Command("models/yolo.py", [*SMALL, "--repeats", "1"], ["--cfg"], ["--imgsz"]),
    Command(
        "tools.compare", [*SMALL, "--repeats", "1", "--notrain", *OUT], ["--weights", "--project"], ["--nc"], MODEL
    ),
    Command(
        "tools.routing",
        [*SMALL, "--workers", "0", *OUT],
        ["--weights", "--data", "--project"],
        ["--batch-size"],
        {**DATA, **MODEL},
    ),
    Command(
        "tools.benchmark",
        ["--imgsz", "64", "--include", "torchscript", *OUT],
        ["--weights", "--data", "--project"],
        ["--batch-size"],
        MODEL,
    ),
    Command("tools.check", ["--report", "out/check"], ["--data", "--report", "--cache-dir"], ["--imgsz"], DATA),
    Command(
        "tools.convert",
        [],
        ["--source", "--output", "--names", "--images"],
        [],
        {"--source": "set/data.yaml", "--output": "out/converted"},
    ),
    Command(
        "tools.preview",
        ["--n", "2", "--imgsz", "64"],
        ["--data", "--hyp", "--output"],
        ["--n", "--seed"],
        {**DATA, "--output": "out/preview"},
    ),
    Command(
        "tools.split",
        [],
        ["--source", "--output", "--names", "--group-by"],
        ["--seed", "--kfold"],
        {"--source": "set/data.yaml", "--output": "out/split"},
    ),
    Command("tools.app", [*SMALL, "--host", "192.0.2.1"], ["--weights", "--data"], ["--port", "--max-upload"], MODEL),
    Command("tools.options_table", [], [""], []),
    Command("tools.demo", ["--none"], [""], []),
    Command("examples/serve.py", ["--imgsz", "64", "--host", "192.0.2.1"], ["--weights"], ["--conf", "--port"], MODEL),
    Command("examples/onnx_image.py", ["set/images/val/0.png"], [""], []),
    Command("examples/openvino_image.py", ["set/images/val/0.png"], [""], []),
)
NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "99999999999999999999",
    "\uff19",
    "1_0",
    "0x10",
    "",
    " ",
    "1,5",
    "9" * 5000,
)


def make_workspace(folder: Path) -> list[str]:
    """Fill ``folder``; returns the odd values for options that take a path."""
    text = {
        "empty": "", "int": "train: a\nnc: !!int abc\n", "null": 'path: "a\\0b"\ntrain: x\nval: x\nnames: [a]\n',
        "brackets": "[" * 20_000, "list": "- a\n- b\n", "scalar": "text", "colon": "names: [a\n",
        "half": '"\\ud800": 1',
        "inf": "nc: 1\ndepth_multiple: .inf\nwidth_multiple: .nan\nanchors: 3\nbackbone: [[-1, 1, Conv, [8]]]\n"
        "head: [[-1, 1, C3, [8]]]",
        "digits": f"nc: {'9' * 5000}\n", "date": "train: 2024-02-30\n", "lr": "lr0: .inf\nmomentum: .nan\n",
        "bomb": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "far": f"train: {'d/' * 3000}\nval: {'n' * 300}\nnames: [a]\n",
        "pipes": "train: pipe.txt\nval: pipe.txt\nnames: [a]\n",
        "locks": "train: locked/images\nval: locked/images\nnames: [a]\n",
        "self": "train: loop\nval: loop\nnames: [a]\n",
    }  # fmt: skip
    for name, content in text.items():
        (folder / f"{name}.yaml").write_text(content)
    for suffix in ("pt", "jpg", "txt", "onnx", "json", "mp4", "csv", "torchscript", "pt2", "py"):
        (folder / f"empty.{suffix}").touch()
        (folder / f"bytes.{suffix}").write_bytes(bytes(range(256)) * 9)
        (folder / f"folder.{suffix}").mkdir()
        with (folder / f"huge.{suffix}").open("wb") as stream:
            stream.truncate(1 << 38)
    (folder / "brackets.json").write_text("[" * 200_000)
    (folder / "huge.yaml").symlink_to("huge.txt")
    (folder / "bytes.yaml").write_bytes(b"names: [\xff\xfe]\n")
    (folder / "mixed.txt").write_bytes(
        "\n".join(["pipe.jpg", "/dev/zero", "n" * 300 + ".jpg", "set/images/val/0.png"]).encode()
    )
    (folder / "null.txt").write_bytes(b"a\0b.jpg\nset/images/val/0.png\n")
    (folder / "mixed").mkdir()
    shutil.copy(folder / "set/images/val/0.png", folder / "mixed/ok.png")
    shutil.copy(folder / "set/images/val/0.png", os.fsencode(folder / "mixed") + b"/latin-\xff.png")
    shutil.copytree(folder / "set", os.fsdecode(os.fsencode(folder) + b"/set-\xff"))
    for suffix in ("jpg", "yaml", "txt", "pt", "png"):
        os.mkfifo(folder / f"pipe.{suffix}")
        os.mkfifo(folder / f"mixed/pipe.{suffix}")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / f"socket.{suffix}"))
    (folder / "loop").symlink_to("loop")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "gone.pt").symlink_to("nowhere.pt")
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    (folder / "fixed").mkdir(mode=0o555)
    (folder / "locked/images").mkdir(parents=True)
    for name in ("locked.yaml", "locked.pt", "locked.jpg"):
        shutil.copy(folder / ("tiny.pt" if name.endswith("pt") else "set/data.yaml"), folder / name)
        (folder / name).chmod(0)
    made = sorted(os.fsdecode(path.name) for path in folder.iterdir() if path.name not in ("set", "tiny.pt", "out"))
    (folder / "locked").chmod(0)
    folder.chmod(0o755)
    return [
        *made, "missing", "missing.yaml", "missing/x.pt", "locked/images", "scalar.yaml/below", "fixed/below",
        "n" * 300,
        f"{'n' * 300}.yaml", "d/" * 3000, "loop/x", "/dev/full", "/dev/null", "/dev/zero", "/dev/stdin", "/dev/full/x",
        ".",
        "~nobody/x", "", " ", "-", "--", "a\tb", "a\nb", "%s{}$HOME", "\u202e.yaml", "\x1b[31m.pt", "*", "[",
        "set/images/val/0.png", "set/data.yaml", "tiny.pt", "http://127.0.0.1:9/x.jpg", "rtsp://127.0.0.1:9/x", "0",
    ]  # fmt: skip


def command_lines(values: Sequence[str], count: int, seed: int) -> Iterator[tuple[Command, list[str]]]:
    """``count`` lines in which each option takes an odd value as often as any other."""
    rng = random.Random(seed)
    options = [(command, flag, False) for command in COMMANDS for flag in command.paths]
    options += [(command, flag, True) for command in COMMANDS for flag in command.numbers]
    left: dict[bool, list[str]] = {False: [], True: []}
    for number in range(count):
        if number % len(options) == 0:
            rng.shuffle(options)
        command, flag, numeric = options[number % len(options)]
        if not left[numeric]:
            left[numeric] = rng.sample(NUMBERS if numeric else values, len(NUMBERS if numeric else values))
        odd = left[numeric].pop()
        given = [word for name, value in command.given.items() if name != flag for word in (name, value)]
        yield command, [*command.small, *given, *([flag] if flag else []), odd]


def run(command: Command, words: list[str], stdout: int, stderr: int, user: int | None) -> int | None:
    """The exit code of a command in a process of its own, a signal as a negative one; None: it had to be stopped."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            sys.argv = [command.target, *words]
            code = _as_main(command.target)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _as_main(target: str) -> int:
    """Run a file or a module as the interpreter would, with its exit code."""
    try:
        if target.endswith(".py"):
            runpy.run_path(str(ROOT / target), run_name="__main__")
        else:
            package = f"{target}.__main__" if (ROOT / target.replace(".", "/") / "__main__.py").is_file() else target
            runpy.run_module(package, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def verdict(command: Command, code: int | None, out: str, err: str) -> str:
    """What is wrong with how a command ended; "" when nothing is."""
    if code is None:
        return f"still running after {LIMIT_S} s"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback" in out + err or "Exception ignored" in err or "Logging error" in err:
        return "traceback"
    lines = [line for line in err.replace("\r", "\n").splitlines() if "error: " in line]
    if command.target.startswith("examples/") and command.target != "examples/serve.py":
        lines = err.strip().splitlines()[-1:]
    # check and export end with 1 when they have found something, which their report names.
    wanted = (0,) if code == 0 else (1,) if code == 2 or not out.strip() else (0, 1)
    return "" if len(lines) in wanted else f"{len(lines)} lines of error, exit code {code}"


def prepare(folder: Path) -> None:
    """A small data set and a small model, made by a process of their own: one that computes must not fork."""
    make = (
        "import sys, numpy as np, cv2; from pathlib import Path\n"
        "root = Path(sys.argv[1])\n"
        "for split in ('train', 'val'):\n"
        "    for kind in ('images', 'labels'): (root / 'set' / kind / split).mkdir(parents=True)\n"
        "    for n in range(2):\n"
        "        image = np.random.default_rng(n).integers(0, 255, (64, 64, 3), dtype=np.uint8)\n"
        "        cv2.imwrite(str(root / f'set/images/{split}/{n}.png'), image)\n"
        "        (root / f'set/labels/{split}/{n}.txt').write_text('0 0.5 0.5 0.4 0.4\\n')\n"
        "(root / 'set/data.yaml').write_text('train: images/train\\nval: images/val\\nnames: [a]\\n')\n"
    )
    subprocess.run([sys.executable, "-c", make, str(folder)], cwd=ROOT, check=True)
    train = [
        sys.executable, "train.py", "--cfg", "yolov5n.yaml", "--data", str(folder / "set/data.yaml"), "--epochs", "1",
        "--batch-size", "2",
        "--imgsz", "64", "--workers", "0", "--device", "cpu", "--project", str(folder / "made"),
    ]  # fmt: skip
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    shutil.move(next((folder / "made").rglob("last.pt")), folder / "tiny.pt")
    shutil.rmtree(folder / "made")


def readable_by(user: int) -> bool:
    """Whether a user can start this interpreter and read the repository."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import torch, utils.core.files"
    try:
        return subprocess.run([sys.executable, "-c", code], user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400, help="command lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--user", default="", help="run them as this user")
    parser.add_argument("--only", default="", help="only commands whose name holds this")
    options = parser.parse_args()
    user = pwd.getpwnam(options.user).pw_uid if options.user else None
    if user is not None and not readable_by(user):
        sys.exit(f"error: {options.user} can read {sys.executable} or {ROOT} not; copy both to where everybody can")
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    with tempfile.TemporaryDirectory(prefix="lines-") as made:
        folder = Path(made)
        prepare(folder)
        values = make_workspace(folder)
        for module in (
            "train",
            "val",
            "detect",
            "export",
            "tools.compare",
            "utils.inference.outputs",
            "fastapi",
            "uvicorn",
        ):
            with_torch = __import__(module)  # so that every child has it
            assert with_torch
        os.chdir(folder)
        counts, failed = Counter[str](), 0
        for command, words in command_lines(values, options.n, options.seed):
            if options.only not in command.target:
                continue
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                start = time.monotonic()
                code = run(command, words, out.fileno(), err.fileno(), user)
                for stream in (out, err):
                    stream.seek(0)
                said = [stream.read().decode("utf-8", "replace") for stream in (out, err)]
            problem = verdict(command, code, *said)
            counts[f"exit code {code}"] += 1
            if problem:
                failed += 1
                shown = shlex.join(
                    [command.target, *(word if len(word) < 400 else f"{word[:20]}..." for word in words)]
                )
                tail = "\n    ".join((said[0][-300:] + said[1][-700:]).strip().splitlines()[-8:])
                print(
                    f"{problem} ({time.monotonic() - start:.1f} s): {shown.encode(errors='replace')!r}\n    {tail}",
                    flush=True,
                )
        os.chdir(ROOT)
        (folder / "locked").chmod(0o755)
    print(json.dumps({"lines": sum(counts.values()), "failed": failed, **counts}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
