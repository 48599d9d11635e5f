"""An image is deleted while the run needs it; it is named, put back, and the run ends as if nothing had been.

python tests/faults/missing_image.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import Run, check, equal_runs, make_set


def main() -> int:
    fine = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_set(folder / "set")
        # Of mosaics from recent images all of so small a set would be kept, and none be read again.
        whole = Run(folder / "runs", "whole", data, "--epochs=6", "--mosaic-from=all")
        whole.start()
        fine &= check("the undisturbed run ends with code 0", whole.wait() == 0)
        run = Run(folder / "runs", "robbed", data, "--epochs=6", "--mosaic-from=all")
        run.start()
        run.wait_for(lambda: len(run.rows()) >= 1)
        image, aside = folder / "set/images/train/7.png", folder / "7.png"
        image.rename(aside)
        code = run.wait()
        fine &= check(f"exit code {code} after {len(run.rows())} epochs", code == 1)
        message = run.line("error:")
        fine &= check(message, str(image) in message and "--resume" in message)
        aside.rename(image)
        run.resume()
        fine &= check("put back, --resume ends with code 0", run.wait() == 0)
        fine &= check("and equals the undisturbed run to the last digit", equal_runs(whole, run))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
