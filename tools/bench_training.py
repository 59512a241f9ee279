"""How long the trainers of candidates take: 800 questions, 12 candidates of 2 shots each, pools of 64.

    python tools/bench_training.py [--width 512] [--rounds 3]

Features are random. WIDTH is of an image's and of a text's features; a demonstration has three times as many columns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from leverplus_core import Batch, Blocks, FeatureWidths, FitRun, Trainer, TrainingData, TrainingGroups
from leverplus_selectors.pointer import PointerSelector
from leverplus_trainers.grpo import GrpoTrainer
from leverplus_trainers.mrt import MrtTrainer
from leverplus_trainers.rce import RceTrainer

QUESTIONS, CANDIDATES, POOL, EPOCHS = 800, 12, 64, 5
TRAINERS: dict[str, Trainer] = {
    "rce": RceTrainer(epochs=EPOCHS),
    "grpo": GrpoTrainer(epochs=EPOCHS),
    "mrt": MrtTrainer(epochs=EPOCHS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    widths = FeatureWidths(image=given.width, text=given.width)
    draw = torch.Generator().manual_seed(0)
    bank = torch.randn(1000, 3 * given.width, generator=draw)
    query = torch.randn(QUESTIONS, 2 * given.width, generator=draw)
    pools = torch.stack([torch.randperm(1000, generator=draw)[:POOL] for _ in range(QUESTIONS)])
    similarity = torch.randn(QUESTIONS, POOL, 2, generator=draw)
    sequences = torch.rand(QUESTIONS, CANDIDATES, POOL, generator=draw).topk(2).indices
    rewards = torch.rand(QUESTIONS, CANDIDATES, generator=draw)
    mask = torch.ones(QUESTIONS, CANDIDATES, dtype=torch.bool)
    groups = TrainingGroups(sequences, mask, rewards, torch.ones(QUESTIONS, dtype=torch.bool))

    def inputs(rows: torch.Tensor) -> Batch:
        candidates = Blocks(bank[pools[rows]], widths.candidate)
        return Batch(Blocks(query[rows], widths.question), candidates, similarity[rows])

    data = TrainingData(groups, inputs)
    seconds: dict[str, list[float]] = {name: [] for name in TRAINERS}
    for _ in range(given.rounds):
        torch.manual_seed(0)
        policy = PointerSelector().policy(widths)
        for name, trainer in TRAINERS.items():
            start = time.perf_counter()
            trainer.fit(policy, data, FitRun(name, 0))
            seconds[name].append(time.perf_counter() - start)
    print(
        f"{QUESTIONS} questions x {CANDIDATES} candidates x pools of {POOL}, {EPOCHS} epochs, {given.width} columns "
        "per feature"
    )
    for name, found in seconds.items():
        print(f"{name}: median {statistics.median(found):.1f} s, {min(found):.1f} to {max(found):.1f}")


if __name__ == "__main__":
    main()
