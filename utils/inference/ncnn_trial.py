"""How ncnn opens a model, and the program that does so once, and runs it, before a process we need does.

    python ncnn_trial.py '{"param": "model.ncnn.param", "weights": "model.ncnn.bin", "half": false, ...}'

ncnn believes what a file says, and some of what a damaged or crafted one can say ends the process. This program imports
nothing of this repository; :mod:`utils.inference.backends.ncnn` starts it and only wants to know whether it comes to
its end: what ncnn refuses in an orderly way, it refuses again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import sys
from typing import Any

INPUT, OUTPUT = "in0", "out0"


def opened(library: Any, param: str, weights: str, half: bool, threads: int) -> Any | None:
    """A net on the CPU, in half precision or not; None where ncnn cannot read the files."""
    net = library.Net()
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_storage = False
    net.opt.num_threads = threads
    return None if net.load_param(param) or net.load_model(weights) else net


def run(library: Any, net: Any, picture: Any) -> tuple[int, Any]:
    """An array [3, H, W] float32 -> (0, boxes), or (ncnn's code, None)."""
    extractor = net.create_extractor()
    failed = extractor.input(INPUT, library.Mat(picture).clone())
    return (failed, None) if failed else extractor.extract(OUTPUT)


def main(work: dict[str, Any]) -> None:
    """``path``: where modules are looked for; ``hw``: of the picture; ``memory`` in bytes; ``seconds`` to the end."""
    faulthandler.dump_traceback_later(work["seconds"], exit=True)  # also inside ncnn, and when nobody waits any more
    with contextlib.suppress(ImportError, ValueError):  # Windows has no limits; a lower one of the user's own stays
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (work["memory"], work["memory"]))
    sys.path[:] = work["path"]
    import ncnn
    import numpy as np

    net = opened(ncnn, work["param"], work["weights"], work["half"], 1)
    if net is not None:
        run(ncnn, net, np.zeros((3, *work["hw"]), np.float32))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
