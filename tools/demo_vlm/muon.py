"""The optimizers of the demo model: Muon (Jordan et al. 2024) for hidden matrices, AdamW for the rest.

torch.optim.Muon orthogonalizes in bfloat16, which is far slower than float32 on a CPU without bfloat16 arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz iteration in float32; matrices of equal shape form one batch."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the parameters that have gradients; `closure` is not used."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    assert p.grad is not None
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))
                # 0.2 sqrt(max(n, m)) gives the update the size of an AdamW one (Liu et al. 2025, Moonlight).
                scale = 0.2 * math.sqrt(max(shape))
                for p, update in zip(params, _orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)


def _orthogonal(g: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = g.shape[-2] <= g.shape[-1]
    x: Tensor = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    orthogonal: Tensor = x if wide else x.mT
    return orthogonal


def optimizers(module: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of `module` but embeddings and heads, AdamW for everything else."""
    matrices = [p for n, p in module.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in module.parameters() if id(p) not in chosen]
    return [Muon(matrices, lr), torch.optim.AdamW(rest, lr, betas=(0.9, 0.98), weight_decay=0.0)]


def set_lr(optimizers: list[torch.optim.Optimizer], step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, constant, then a linear decay to zero over the last 40% of the steps."""
    lr = peak * min(1.0, (step + 1) / warmup, (steps - step) / (0.4 * steps))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
    return lr
