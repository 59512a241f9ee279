"""Built-in trainers: how the selector learns from sequences and from measured candidates."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_trainers() -> dict[str, str]:
    return {
        "sft": "leverplus_trainers.sft:SftTrainer",
        "rce": "leverplus_trainers.rce:RceTrainer",
        "grpo": "leverplus_trainers.grpo:GrpoTrainer",
        "mrt": "leverplus_trainers.mrt:MrtTrainer",
    }
