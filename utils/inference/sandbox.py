"""The program that opens a model file and runs it once, in a separate process with limits, before ours does.

    python sandbox.py '{"kind": "onnx", "file": "a.onnx", "shape": [1, 3, 64, 64], "half": false, ...}'

ONNX Runtime, OpenVINO, OpenCV, ncnn and ExecuTorch trust the content of a file: a damaged or crafted one can crash the
process or take all memory. This program imports nothing of this repository and writes nothing;
:mod:`utils.inference.backends.checked_graph` starts it and only checks that it ends without an error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

NCNN_INPUT, NCNN_OUTPUT = "in0", "out0"


def limit_resources(memory: int, seconds: int) -> None:
    """Limit memory (bytes) and time of this process, where the system can."""
    faulthandler.dump_traceback_later(seconds, exit=True)  # also inside a library, and if the parent has ended
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        known = resource.getrlimit(kind)[1]  # a limit that the user has set cannot be raised
        bound = most if known == resource.RLIM_INFINITY else min(most, known)
        resource.setrlimit(kind, (bound, bound))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # of printed text


def open_ncnn(library: Any, param: Path, half: bool, threads: int) -> Any | None:
    """Open a net of ncnn on the CPU, in half precision or not; None: it cannot read the file or that of the weights."""
    net = library.Net()
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_storage = False
    net.opt.num_threads = threads
    return None if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))) else net


def run_ncnn(library: Any, net: Any, image: Any) -> tuple[int, Any]:
    """Run an image [3, H, W] float32 -> (0, boxes), or (error code of ncnn, None)."""
    extractor = net.create_extractor()
    failed = extractor.input(NCNN_INPUT, library.Mat(image).clone())
    return (failed, None) if failed else extractor.extract(NCNN_OUTPUT)


def run_executorch(work: dict[str, Any]) -> None:
    """Run both methods of a program; its packages come before the limits, as they reserve more memory than it needs."""
    sys.path[:] = work["path"]
    import torch
    from executorch.runtime import Runtime

    limit_resources(work["memory"] + reserved(), work["seconds"])
    program = Runtime.get().load_program(Path(work["file"]).read_bytes())
    if "about" in program.method_names:
        program.load_method("about").execute([])
    method = program.load_method("forward")
    images = torch.zeros(work["shape"], dtype=torch.float16 if work["half"] else torch.float32)
    method.execute([images])


def reserved() -> int:
    """Bytes of addresses that this process has reserved, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def main(work: dict[str, Any]) -> None:
    """``path``: where modules are searched; ``memory`` in bytes; ``seconds``: after which this process ends."""
    if work["kind"] == "executorch":
        run_executorch(work)
        return
    limit_resources(work["memory"], work["seconds"])
    sys.path[:] = work["path"]
    import numpy as np

    if work["kind"] == "ncnn":  # a file that it refuses without a crash, it refuses again later
        import ncnn

        net = open_ncnn(ncnn, Path(work["file"]), work["half"], 1)
        if net is not None:
            run_ncnn(ncnn, net, np.zeros(work["shape"], np.float32))
        return
    images = np.zeros(work["shape"], np.float16 if work["half"] else np.float32)
    if work["kind"] == "onnx":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level, settings.intra_op_num_threads = 4, 1
        session = onnxruntime.InferenceSession(work["file"], settings, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: images})
    elif work["kind"] == "openvino":
        import openvino

        core = openvino.Core()
        model = core.read_model(work["file"])
        core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})([images])
    else:
        import cv2

        net = cv2.dnn.readNetFromONNX(work["file"])
        net.setInput(images)
        net.forward()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
