"""last.pt is cut short or overwritten; the message names a file to use instead, and that one works.

python tests/faults/corrupt_last.py
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from common import Run, check, make_set


def main() -> int:
    fine = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run(folder / "runs", "exp", make_set(folder / "set"), "--epochs=4")
        run.start()
        run.wait_for(lambda: len(run.rows()) >= 2)
        run.process.send_signal(signal.SIGTERM)
        fine &= check("SIGTERM ends the run with code 0", run.wait() == 0)
        fine &= check(run.line("resume with"), str(run.last) in run.line("resume with"))
        sound = run.last.read_bytes()
        half = len(sound) // 2
        damages = {
            "empty": b"", "its first half": sound[:half], "all but a byte": sound[:-1], "text": b"no checkpoint\n" * 99,
            "zeros in the middle": sound[:half] + bytes(4096) + sound[half + 4096 :],
        }  # fmt: skip
        instead = run.last.with_name("best.pt")
        for what, content in damages.items():
            run.last.write_bytes(content)
            run.resume()
            code = run.wait()
            message = run.line("error:")
            print(f"        {message}", flush=True)
            named = f"--resume {instead}" in message
            fine &= check(f"{what}: exit code {code}, best.pt named", code == 1 and named)
        run.start(f"--resume={instead}")
        fine &= check("that one goes on to the end", run.wait() == 0 and len(run.rows()) == 4)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
