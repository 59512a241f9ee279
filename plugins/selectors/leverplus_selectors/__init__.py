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
        "text_image_knn": "leverplus_selectors.knn:TextImageKnnSelector",
        "state_knn": "leverplus_selectors.knn:StateKnnSelector",
        "bank_knn": "leverplus_selectors.bank_knn:BankKnnSelector",
        "bm25": "leverplus_selectors.bm25:Bm25Selector",
        "fixed": "leverplus_selectors.fixed:FixedSelector",
        "two_tower": "leverplus_selectors.two_tower:TwoTowerSelector",
        "oracle": "leverplus_selectors.oracle:OracleSelector",
    }
