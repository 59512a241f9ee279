"""How long the trainers of candidates take: questions with 12 candidates of 2 shots each, 32 questions a step.

    python tools/bench_training.py [--width 512] [--pool 64] [--rounds 3] [--device cuda] [--cpu-time]

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

CANDIDATES, EPOCHS, BANK = 12, 5, 1000
TRAINERS: dict[str, Trainer] = {
    "rce": RceTrainer(epochs=EPOCHS),
    "grpo": GrpoTrainer(epochs=EPOCHS),
    "mrt": MrtTrainer(epochs=EPOCHS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--pool", type=int, default=64)
    parser.add_argument("--questions", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, for a machine that others use")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    widths = FeatureWidths(image=given.width, text=given.width)
    data = made(widths, given.questions, given.pool, torch.device(given.device))
    seconds: dict[str, list[float]] = {name: [] for name in TRAINERS}
    for _ in range(given.rounds):
        torch.manual_seed(0)
        policy = PointerSelector().policy(widths).to(given.device)
        for name, trainer in TRAINERS.items():
            start = clock()
            trainer.fit(policy, data, FitRun(name, 0))
            seconds[name].append(clock() - start)
    steps = EPOCHS * -(-given.questions // 32)
    print(
        f"{given.questions} questions x {CANDIDATES} candidates x pools of {given.pool}, {given.width} columns per "
        f"feature: {EPOCHS} epochs, {steps} steps on {given.device}"
    )
    for name, found in seconds.items():
        middle, shown = statistics.median(found), f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name}: median {middle:.1f} s, {shown}; {1000 * middle / steps:.1f} ms a step")


def made(widths: FeatureWidths, questions: int, pool: int, device: torch.device) -> TrainingData:
    """Random questions, pools, candidates and rewards on `device`."""
    draw = torch.Generator().manual_seed(0)
    bank = torch.randn(BANK, sum(widths.candidate.values()), generator=draw).to(device)
    query = torch.randn(questions, sum(widths.question.values()), generator=draw).to(device)
    pools = torch.stack([torch.randperm(BANK, generator=draw)[:pool] for _ in range(questions)]).to(device)
    similarity = torch.randn(questions, pool, 2, generator=draw).to(device)
    sequences = torch.rand(questions, CANDIDATES, pool, generator=draw).topk(2).indices
    rewards = torch.rand(questions, CANDIDATES, generator=draw)
    every = torch.ones(questions, CANDIDATES, dtype=torch.bool)
    groups = TrainingGroups(sequences, every, rewards, torch.ones(questions, dtype=torch.bool)).to(device)

    def inputs(rows: torch.Tensor) -> Batch:
        candidates = Blocks(bank[pools[rows]], widths.candidate)
        return Batch(Blocks(query[rows], widths.question), candidates, similarity[rows])

    return TrainingData(groups, inputs)


if __name__ == "__main__":
    main()
