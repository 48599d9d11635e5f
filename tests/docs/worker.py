"""Run commands of this repository, each in a process forked from one that has imported torch already.

    python tests/docs/worker.py commands.json   # in the root of a working tree: a list of lists of words

Writes ``N.log`` with the output of command N beside the file, and ``codes.json`` with the exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

PRELOADED = ("torch", "torchvision", "cv2", "models.yolo", "utils.training", "utils.evaluation", "utils.inference")


def run(words: list[str], log: Path) -> int:
    """Run ``python WORDS`` in a child process; return its exit code."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 0
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        sys.argv = words[1:] if words[0] == "-m" else words
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(file: Path) -> None:
    sys.path[:0] = [str(Path.cwd())]
    for name in PRELOADED:
        importlib.import_module(name)
    commands = json.loads(file.read_text(encoding="utf-8"))
    codes = [run(words, file.parent / f"{number}.log") for number, words in enumerate(commands)]
    (file.parent / "codes.json").write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
