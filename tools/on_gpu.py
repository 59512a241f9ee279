"""Everything that needs a GPU, in one command: `python tools/on_gpu.py [--quick]` (`make bench-gpu`).

Runs the table of Qwen2.5-VL-3B's geometry, which it writes into docs/performance.md, `leverplus plan --probe` of the
demo, and the tests with the marker `gpu`. Each is a program of its own: what fails is said; the next one runs. Needs
the packages of `make install`, or their folder in PYTHONPATH; nothing is downloaded. Exit code 1 when one failed.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLI = ["-c", "from leverplus_core.cli import main; main()"]
"""`leverplus`, also where its script is not installed."""
SMALL = ["--geometry", "demo", "--questions", "1", "--pool", "3", "--rounds", "1", "--threads", "1", "--arms", "full"]


def steps(device: str, quick: bool, output: Path) -> list[tuple[str, list[str], int]]:
    """What runs: a title, the arguments of this interpreter, and the seconds after which it is ended.

    The table comes first: it is what a short loan of a machine is for.
    """
    table = ["--device", device, "--output", str(output), *(SMALL if device == "cpu" else ["--geometry", "3b"])]
    return [
        ("table", ["-m", "tools.bench", *table, *(["--quick"] if quick else [])], 120 if quick else 300),
        ("probe", [*CLI, "plan", "demo", "--probe", "--set", f"model.device={device}"], 120),
        ("tests", ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests/plugins/models/engine"], 180),
    ]


def run(title: str, arguments: Sequence[str], limit: float) -> bool:
    """Run one step, its output shown as it comes; whether it succeeded."""
    print(f"== {title}: python {shlex.join(arguments)}", flush=True)
    began = time.monotonic()
    try:
        code: int | str = subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=limit, check=False).returncode
    except subprocess.TimeoutExpired:
        code = "ended for time"
    print(
        f"== {title}: {'done' if code == 0 else f'failed ({code})'} after {time.monotonic() - began:.0f} s", flush=True
    )
    return code == 0


def main() -> int:
    """Exit code 1 when a step failed."""
    parser = argparse.ArgumentParser(prog="python tools/on_gpu.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the table in 90 seconds instead of four minutes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the program on the demo")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md", help="the page to write")
    parser.add_argument("--only", default="table,probe,tests", help="steps, separated by commas")
    options = parser.parse_args()
    chosen = options.only.split(",")
    done = [run(*step) for step in steps(options.device, options.quick, options.output) if step[0] in chosen]
    return 0 if done and all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
