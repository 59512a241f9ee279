"""Built-in selectors: the networks that choose demonstrations."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_selectors() -> dict[str, str]:
    return {
        "pointer": "leverplus_selectors.pointer:PointerSelector",
        "pairwise": "leverplus_selectors.pairwise:PairwiseSelector",
        "lever_lm": "leverplus_selectors.lever_lm:LeverLm",
    }
