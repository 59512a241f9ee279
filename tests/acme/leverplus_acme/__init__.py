"""A whole third-party package: each part is one file, and one line here that names it."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return {"acme": "leverplus_acme.reward:GapReward"}
