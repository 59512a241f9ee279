"""Built-in selectors: networks that learn to choose demonstrations, and the baselines that need no training."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_selectors() -> dict[str, str]:
    return {
        "pointer": "leverplus_selectors.pointer:PointerSelector",
        "pairwise": "leverplus_selectors.pairwise:PairwiseSelector",
        "lever_lm": "leverplus_selectors.lever_lm:LeverLmSelector",
        "zero_shot": "leverplus_selectors.zero_shot:ZeroShotSelector",
        "random": "leverplus_selectors.uniform:RandomSelector",
        "text_knn": "leverplus_selectors.knn:TextKnnSelector",
        "image_knn": "leverplus_selectors.knn:ImageKnnSelector",
        "oracle": "leverplus_selectors.oracle:OracleSelector",
    }
