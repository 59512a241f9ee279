"""Built-in balancers: which of a question's candidates are used for training."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_balancers() -> dict[str, str]:
    """The balancers of this room."""
    return {
        "top_pn": "leverplus_balancers.top_pn:TopPnBalancer",
        "keep_all": "leverplus_balancers.keep_all:KeepAllBalancer",
        "limit": "leverplus_balancers.limit:LimitBalancer",
        "ratio": "leverplus_balancers.band:RatioBalancer",
        "query_ratio": "leverplus_balancers.band:QueryRatioBalancer",
    }
