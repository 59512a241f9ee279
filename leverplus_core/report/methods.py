"""The order of methods in every table, and which of them were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.recipes.settings import ABLATED

Row = dict[str, Any]
ZERO_SHOT, FLOOR, NEIGHBORS, CEILING = "zero_shot", "random", "text_knn", "oracle"
UNTRAINED = frozenset({
    ZERO_SHOT, FLOOR, NEIGHBORS, "image_knn", "text_image_knn", "state_knn", "bank_knn", "bm25", "fixed", "adaptive",
    CEILING,
})  # fmt: skip
"""With the baselines of a recipe, the methods that no stage trained; `adaptive` is a way to decode a policy."""


def ordered_methods(run: Mapping[str, Any], methods: Iterable[str]) -> list[str]:
    """`methods` of a run in the order of reports: as its recipe gives it (`recipes.recipe.method_order`), as the
    columns of a published table stand, or as logs were imported; methods that the recipe does not name stand before the
    oracle."""
    from leverplus_core.recipes.recipe import method_order

    match run["source"]:
        case "published":
            known = run["recipe"]["published"]["methods"]
        case "imported":
            known = imported_methods(run)
        case _:
            known = method_order(run["recipe"])
    place = {method: i for i, method in enumerate(known)}
    unknown = place.get(CEILING, len(place)) - 0.5
    return sorted(dict.fromkeys(methods), key=lambda method: place.get(method, unknown))


def imported_methods(run: Mapping[str, Any]) -> list[str]:
    """The methods of an imported run, as their logs were imported: the first is what the others are compared with."""
    return [log["method"] for log in run["recipe"]["imported"]["logs"]]


def merged_order(orders: Iterable[Sequence[str]]) -> list[str]:
    """One order of the methods of several runs: a method that earlier runs lack follows its predecessor."""
    found: list[str] = []
    for order in orders:
        place = 0
        for method in order:
            if method in found:
                place = found.index(method) + 1
            else:
                found.insert(place, method)
                place += 1
    return found


def trained_methods(run: Mapping[str, Any], methods: Iterable[str]) -> list[str]:
    """Those of `methods` that the run trained, in the order of training; not their ablations. Of an imported run, all
    but the first: those that are to be compared."""
    baselines = (run["recipe"].get("evaluation") or {}).get("baselines") or ()
    untrained = UNTRAINED | {spec if isinstance(spec, str) else spec["name"] for spec in baselines}
    trained = (method for method in ordered_methods(run, methods) if method not in untrained)
    return [method for method in trained if ABLATED not in method]


def pick_method(run: Mapping[str, Any], methods: Iterable[str], method: str | None) -> str:
    """`method`, or without one the method of `run` that was trained last, or is its only one.

    Raises RegistryError where `method` is not among `methods`, or nothing was trained.
    """
    where, known = f"run {run['name']} ({run['id']})", list(methods)
    if method is not None:
        if method not in known:
            raise RegistryError(f"no method '{method}' in {where}.", did_you_mean(method, known))
        return method
    trained = trained_methods(run, known) or (known if run["source"] == "imported" else [])
    if not trained:
        raise RegistryError(f"{where} trained nothing.", "Name a method: RUN:METHOD.")
    return trained[-1]
