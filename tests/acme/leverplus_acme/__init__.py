"""A whole third-party package: each part is one file, and one line that names it, here or in pyproject.toml."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return {"acme": "leverplus_acme.reward:GapReward"}


@hookimpl
def leverplus_selectors() -> dict[str, str]:
    return {"acme_mmr": "leverplus_acme.mmr:MmrSelector"}


@hookimpl
def leverplus_trainers() -> dict[str, str]:
    return {"acme_dpo": "leverplus_acme.dpo:DpoTrainer"}


@hookimpl
def leverplus_stages() -> dict[str, str]:
    return {"acme_census": "leverplus_acme.census:Census"}
