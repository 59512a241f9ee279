"""What a report compares: runs as configurations, their methods as contenders, and the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.io import canonical_json
from leverplus_core.registry.registry import Registry
from leverplus_core.report.grid import Arm
from leverplus_core.report.methods import CEILING, FLOOR, Row, ordered_methods, pick_method
from leverplus_core.report.pairing import members, split_name
from leverplus_core.report.primary import Endpoint, best_baseline

PARTS = ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward")
NOT_SETTINGS = ("name", "note", "seed", "threads", "execution")
"""Keys of a recipe that do not make another configuration."""
NAMED_BY = 3
"""Settings that may name a configuration; with more of them its run's id does."""


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seeds only, one published table, or one imported run. `methods` are those that all of
    them have."""

    label: str
    runs: tuple[Row, ...]
    methods: tuple[str, ...]

    @property
    def published(self) -> bool:
        """Whether it is a published table, without predictions."""
        return bool(self.runs[0]["source"] == "published")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its runs."""
        return tuple(run["id"] for run in self.runs)

    def settings(self) -> dict[str, Any]:
        """The recipe with dotted keys; the key of a part is its name: `balancer` top_pn, `balancer.p` 8."""
        return _flat(_settings_of(self.runs[0]))

    def pick(self, wanted: Sequence[str], alone: bool) -> list[str]:
        """The `wanted` methods that take part; without these, all of a published table, all but the oracle of a
        configuration that is `alone`, or the method trained last. Raises RegistryError for an unknown one."""
        if wanted or not (self.published or alone):
            return [pick_method(self.runs[0], self.methods, method) for method in wanted or (None,)]
        return [m for m in self.methods if self.published or m != CEILING]


@dataclass(frozen=True)
class Contender:
    """One method of one configuration: a column of the report."""

    label: str
    configuration: Configuration
    method: str

    @property
    def published(self) -> bool:
        """Whether it is a column of a published table."""
        return self.configuration.published

    def arm(self) -> Arm:
        """The contender as an arm of a grid, all its seeds; primary where the endpoint is about its method."""
        c = self.configuration
        primary = not c.published and Endpoint.of(c.runs[0], c.methods).method == self.method
        return Arm(self.label, tuple(f"{run_id}:{self.method}" for run_id in c.ids), primary)


@dataclass(frozen=True)
class ReportSpec:
    """What is compared with what. `left_out` are runs of a sweep that have not finished."""

    configurations: tuple[Configuration, ...]
    contenders: tuple[Contender, ...]
    baseline: Contender
    left_out: tuple[Row, ...]

    @classmethod
    def of(
        cls, registry: Registry, names: Sequence[str], baseline: str | None = None, methods: Sequence[str] = ()
    ) -> Self:
        """What `names` and `baseline` stand for.

        A name is a sweep (all its finished runs), a run (id, start of one, name or `latest`), or RUN:METHOD. Runs that
        differ in seed only, and those of one arm of a sweep, are one configuration. It takes part with `methods`;
        without these, a published table with all of its columns, a single configuration that is compared with itself
        with all its methods but the oracle (which sees the answers), and any other with the method trained last.
        `baseline` is RUN:METHOD, where a run stands for its whole configuration, the label of a configuration may
        stand for the run, and METHOD alone is one of the first configuration; without it, the best baseline
        of the only configuration, or the method that the first of several trained last.

        Raises RegistryError for an unknown name or method, and where nothing is left to compare.
        """
        found, left_out = _runs(registry, names)
        configurations = _configurations(registry, [run for run, _ in found])
        own = [c for c in configurations if not c.published]
        if baseline is None:
            baseline = own[0].pick(methods[:1], False)[0] if len(own) > 1 else _best(registry, own)
        base, base_method = _baseline(registry, configurations, baseline)
        picked: list[tuple[Configuration, str]] = []
        for configuration in configurations:
            named = dict.fromkeys(method for run, method in found if method and run["id"] in configuration.ids)
            picked += [(configuration, m) for m in configuration.pick(list(named) or methods, own == [base])]
        picked = [(c, m) for c, m in picked if (c.ids, m) != (base.ids, base_method)]
        if not picked:
            raise RegistryError(
                f"there is nothing to compare with {base.label}:{base_method}.", "Name another run, or more methods."
            )
        first, *others = _contenders([(base, base_method), *picked])
        return cls(tuple(configurations), tuple(others), first, tuple(left_out))


def _best(registry: Registry, own: Sequence[Configuration]) -> str:
    """The best baseline of the only configuration (see `primary.best_baseline`)."""
    best = best_baseline(registry, own[0].ids, own[0].methods) if own else None
    return best.name if best else FLOOR


def _runs(registry: Registry, names: Sequence[str]) -> tuple[list[tuple[Row, str | None]], list[Row]]:
    """(run, method or None) in the order of `names`, and the unfinished runs of sweeps."""
    runs = registry.runs()
    found: dict[tuple[str, str | None], Row] = {}
    left_out: list[Row] = []
    for name in names:
        if swept := [r for r in reversed(runs) if r["sweep"] == name]:
            done = [r for r in swept if r["status"] == "done"]
            left_out += [r for r in swept if r["status"] != "done"]
            if not done:
                raise RegistryError(f"no run of the sweep {name} has finished yet.", "Continue with `leverplus sweep`.")
            found |= {(run["id"], None): run for run in done if (run["id"], None) not in found}
        else:
            run, method = _named(registry, name, runs)
            found.setdefault((run["id"], method), run)
    for run_id, method in found:
        if method is not None and (run_id, None) in found:
            raise RegistryError(
                f"run {found[run_id, None]['name']} is named with and without the method {method}.",
                "Name it one way, or use --method.",
            )
    return [(run, method) for (_, method), run in found.items()], left_out


def _named(registry: Registry, name: str, runs: Sequence[Row]) -> tuple[Row, str | None]:
    run, method = split_name(name)
    if method is not None and not any(name in (r["id"], r["name"]) for r in runs):
        return registry.resolve(run), method
    try:
        return registry.resolve(name), None
    except RegistryError as e:
        sweeps = sorted({r["sweep"] for r in runs if r["sweep"]})
        raise RegistryError(e.what, f"{e.hint} Sweeps: {', '.join(sweeps)}." if sweeps else e.hint) from None


def _configurations(registry: Registry, runs: Sequence[Row]) -> list[Configuration]:
    groups: dict[str, list[Row]] = {}
    for run in {r["id"]: r for r in runs}.values():
        groups.setdefault(_key(run), []).append(run)
    for group in groups.values():
        seeds = [run["seed"] for run in group]
        if again := [seed for seed in seeds if seeds.count(seed) > 1]:
            ids = " and ".join(run["id"] for run in group if run["seed"] == again[0])
            raise RegistryError(
                f"runs {ids} are of one arm and one seed, with different recipes.", "Name the runs to compare."
            )
    return [
        Configuration(label, tuple(sorted(group, key=lambda run: run["seed"])), _shared_methods(registry, group))
        for label, group in zip(_labels([group[0] for group in groups.values()]), groups.values(), strict=True)
    ]


def _settings_of(run: Row) -> dict[str, Any]:
    return {key: value for key, value in run["recipe"].items() if key not in NOT_SETTINGS}


def _key(run: Row) -> str:
    if run["source"] != "run":
        return str(run["id"])
    if run["sweep"] and run["arm"] is not None:
        return canonical_json([run["sweep"], run["arm"]])
    return canonical_json(_settings_of(run) or run["id"])


def _shared_methods(registry: Registry, group: Sequence[Row]) -> tuple[str, ...]:
    held = [members(registry, run["id"]) for run in group]
    return tuple(m for m in ordered_methods(group[0], held[0]) if all(m in there for there in held))


def _baseline(registry: Registry, configurations: Sequence[Configuration], text: str) -> tuple[Configuration, str]:
    name, method = split_name(text)
    if method is None:
        name, method = "", text
    found = next((c for c in configurations if not name or c.label == name), None)
    if found is None:
        run = registry.resolve(name)
        own = Configuration(run["name"], (run,), _shared_methods(registry, [run]))
        found = next((c for c in configurations if run["id"] in c.ids), own)
    if method not in found.methods:
        raise RegistryError(
            f"no method '{method}' in {found.label} to be the baseline.",
            f"{did_you_mean(method, found.methods)} Say --baseline RUN:METHOD.",
        )
    return found, method


# Labels.


def _labels(runs: Sequence[Row]) -> list[str]:
    """For the first run of each configuration: what its sweep varies, its name if no other has it, the settings that
    differ, or its id."""
    if len({run["sweep"] for run in runs}) == 1 and all(run["arm"] is not None for run in runs):
        arms = [_arm(run["arm"]) or str(run["sweep"]) for run in runs]
        if _distinct(arms):
            return arms
    names = [run["name"] for run in runs]
    if _distinct(names):
        return names
    flat = [_flat(_settings_of(run)) for run in runs]
    differing, _ = split_settings(flat)
    labels = [", ".join(f"{key}={_text(one[key])}" for key in differing if key in one) for one in flat]
    if len(differing) <= NAMED_BY and all(labels) and _distinct(labels):
        return labels
    return [f"{run['name']} {run['id'][:6]}" for run in runs]


def split_settings(every: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The keys whose values differ, or that only some have, and those that all share, in order."""
    differing: list[str] = []
    common: list[str] = []
    for key in dict.fromkeys(key for one in every for key in one):
        values = {canonical_json([key in one, one.get(key)]) for one in every}
        (differing if len(values) > 1 else common).append(key)
    return differing, common


def _distinct(labels: Sequence[str]) -> bool:
    return len(set(labels)) == len(labels)


def _contenders(picked: Sequence[tuple[Configuration, str]]) -> list[Contender]:
    """The baseline comes first. A label is the method, the configuration, or both where one is ambiguous."""
    others = picked[1:]
    if len({c.ids for c, _ in picked}) == 1:
        labels = [method for _, method in picked]
    else:
        labels = [f"{c.label} · {method}" for c, method in picked]
        methods = {method for _, method in others}
        if len(methods) == 1 and not any(c.published for c, _ in others):
            labels = [c.label if m in methods else label for (c, m), label in zip(picked, labels, strict=True)]
    return [Contender(label, c, method) for label, (c, method) in zip(labels, picked, strict=True)]


def _arm(arm: Mapping[str, Any]) -> str:
    """`top_pn, mixed`: what the sweep varies, with the setting's name where the value is no part or recipe."""
    return ", ".join(_text(v) if k in (*PARTS, "recipe") else f"{k}={_text(v)}" for k, v in arm.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = under if under and key == "name" else f"{under}.{key}" if under else key
        found |= _flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found
