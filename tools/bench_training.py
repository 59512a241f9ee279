"""How long RCE and GRPO take: 800 questions, 12 candidates of two shots each, pools of 64, random features.

    python tools/bench_training.py [--width 512] [--rounds 3]

WIDTH is of an image's and of a text's features, so that a demonstration has three times as many columns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from leverplus_core.recipes.settings import GrpoSettings, RceSettings
from leverplus_core.selector.policy import Batch
from leverplus_core.training import grpo, rce
from leverplus_core.training.trainer import Groups, TrainingData
from leverplus_selectors.pointer import PointerSelector

QUESTIONS, CANDIDATES, POOL, EPOCHS = 800, 12, 64, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    width = given.width
    draw = torch.Generator().manual_seed(0)
    bank = torch.randn(1000, 3 * width, generator=draw)
    query = torch.randn(QUESTIONS, 2 * width, generator=draw)
    pools = torch.stack([torch.randperm(1000, generator=draw)[:POOL] for _ in range(QUESTIONS)])
    near = torch.randn(QUESTIONS, POOL, 2, generator=draw)
    sequences = torch.rand(QUESTIONS, CANDIDATES, POOL, generator=draw).topk(2).indices
    rewards = torch.rand(QUESTIONS, CANDIDATES, generator=draw)
    whole = torch.ones(QUESTIONS, CANDIDATES, dtype=torch.bool)
    groups = Groups(sequences, whole, rewards, torch.ones(QUESTIONS, dtype=torch.bool))

    def inputs(rows: list[int]) -> Batch:
        return Batch(query[rows], bank[pools[rows]], near[rows])

    data = TrainingData(groups, inputs)
    seconds: dict[str, list[float]] = {"rce": [], "grpo": []}
    for _ in range(given.rounds):
        torch.manual_seed(0)
        policy = PointerSelector().policy(2 * width, 3 * width)
        began = time.perf_counter()
        rce.train(policy, data, None, RceSettings(epochs=EPOCHS), seed=0)
        middle = time.perf_counter()
        grpo.train(policy, data, None, GrpoSettings(epochs=EPOCHS), seed=0)
        seconds["rce"].append(middle - began)
        seconds["grpo"].append(time.perf_counter() - middle)
    print(
        f"{QUESTIONS} questions x {CANDIDATES} candidates x pools of {POOL}, {EPOCHS} epochs, {width} columns a feature"
    )
    for name, found in seconds.items():
        print(f"{name}: median {statistics.median(found):.1f} s, {min(found):.1f} to {max(found):.1f}")


if __name__ == "__main__":
    main()
