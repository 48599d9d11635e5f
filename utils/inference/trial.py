"""The program that opens a model file and runs it once, in a process of its own with limits, before ours does.

    python trial.py '{"kind": "onnx", "file": "a.onnx", "shape": [1, 3, 64, 64], "half": false, ...}'

ONNX Runtime, OpenVINO and OpenCV believe what a file says: a damaged or crafted one can end the process or take all
memory. This program imports nothing of this repository and writes nothing; :mod:`utils.inference.backends.tried` starts
it and only wants to know whether it comes to its end.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from typing import Any


def limit(memory: int, seconds: int) -> None:
    """Bound what this process may take, where the system can."""
    faulthandler.dump_traceback_later(seconds, exit=True)  # also inside a library, and when nobody waits any more
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        known = resource.getrlimit(kind)[1]  # a limit of the user's own holds: it cannot be raised
        bound = most if known == resource.RLIM_INFINITY else min(most, known)
        resource.setrlimit(kind, (bound, bound))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # what is printed


def main(work: dict[str, Any]) -> None:
    """``path``: where modules are looked for; ``memory`` in bytes; ``seconds``: after which this ends itself."""
    limit(work["memory"], work["seconds"])
    sys.path[:] = work["path"]
    import numpy as np

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
