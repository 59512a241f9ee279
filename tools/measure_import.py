"""Write an rl-data file of a stated size, import it in a process of its own, and print what that took.

    python tools/measure_import.py 1000            # megabytes
    python tools/measure_import.py 1000 --keep DIR

The file is as the research code writes it (indent 2): VQAv2's number of rows, pools of 64, 12 candidates of 2 shots.
Peak memory is that of the importing process alone, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAIN_ROWS = 443_757  # VQAv2
WORDS = ("what", "color", "is", "the", "dog", "on", "table", "man", "holding", "why", "how", "many", "people", "bus")
ANSWERS = ("yes", "no", "2", "blue", "to play baseball", "skateboarding", "wood", "red and white")

IMPORT = """
import sys
from pathlib import Path
from leverplus_core import Catalog
from leverplus_core.pipeline.importing import import_data
import_data(Catalog.load().build("importer", "rl-data", {}), "rl-data", Path(sys.argv[1]), Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def entries(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(row, entry) of random questions, each row once."""
    chance = random.Random(seed)
    for row in chance.sample(range(TRAIN_ROWS), TRAIN_ROWS):
        answers = chance.choices(ANSWERS, k=10)
        pool = [n for n in chance.sample(range(TRAIN_ROWS), 65) if n != row][:64]
        sequences = {tuple(chance.sample(range(64), 2)): None for _ in range(12)}
        yield (
            str(row),
            {
                "query": {
                    "query_id": row,
                    "question_id": row * 10,
                    "image_id": row // 5,
                    "question": " ".join(chance.choices(WORDS, k=chance.randint(4, 10))) + "?",
                    "gt_answers_raw": answers,
                    "gt_answers_norm": answers,
                },
                "candidate_pool_ids": pool,
                "pointer_candidates": [_candidate(pointer, pool, chance) for pointer in sequences],
            },
        )


def _candidate(pointer: tuple[int, ...], pool: list[int], chance: random.Random) -> dict[str, Any]:
    accuracy = chance.choice((0.0, 0.0, 0.3, 0.6, 1.0))
    answer = chance.choice(ANSWERS)
    return {
        "pointer": list(pointer),
        "beam_score": None,
        "logprob_score": -10 * chance.random(),
        "gen_method": chance.choice(("beam", "sample_t1.0", "sample_t1.3", "retrieval", "random")),
        "pointer_global": [pool[p] for p in pointer],
        "vqa_raw_generation": answer + " Question",
        "vqa_pred_answer": answer,
        "vqa_correct": int(accuracy > 0),
        "vqa_acc_score": accuracy,
        "vqa_gt_prob": chance.random(),
        "vqa_eval_mode": "vqaEval",
        "vqa_rel_token_f1": accuracy,
        "vqa_rel_edit_sim": accuracy,
        "vqa_rel_score": accuracy,
    }


def write_file(path: Path, megabytes: float, seed: int = 0) -> int:
    """Write about so many megabytes of rl-data to `path`; returns the number of questions."""
    with path.open("w", encoding="utf-8") as f:
        f.write('{\n  "_meta": {"version": "k64", "vqa_model": "qwen2.5_vl_3B"}')
        questions = 0
        for key, entry in entries(seed):
            f.write(f',\n  "{key}": {json.dumps(entry, indent=2, ensure_ascii=False)}')
            questions += 1
            if f.tell() >= megabytes * 1e6:
                break
        f.write("\n}\n")
    return questions


def measure(file: Path, folder: Path) -> tuple[float, float]:
    """(peak MB, seconds) of importing `file` into `folder`, in a process of its own (Linux)."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(file), str(folder)], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024 / 1e6, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megabytes", type=float)
    parser.add_argument("--keep", type=Path, help="leave file and folder here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = given.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        file = place / "rl_data.json"
        questions = write_file(file, given.megabytes)
        peak, seconds = measure(file, place / "imported")
        size = file.stat().st_size / 1e6
        print(f"{size:,.0f} MB, {questions:,} questions: imported in {seconds:.0f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
