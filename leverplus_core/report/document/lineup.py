"""Who takes part in a report: runs as configurations, their methods as sides, and the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.io import canonical_json
from leverplus_core.registry.registry import Registry
from leverplus_core.report.grid import Arm
from leverplus_core.report.headroom import CEILING, FLOOR, chosen
from leverplus_core.report.leaderboard import method_order
from leverplus_core.report.pairing import Member, Row, members, split_name

PARTS = ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward")
APART = ("name", "note", "seed", "threads")
"""Keys of a recipe that do not make another configuration."""
NAMED_BY = 3
"""Settings that may name a configuration; with more of them its run's id does."""


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seeds only, or one published table. `methods` are those that all of them hold."""

    label: str
    runs: tuple[Row, ...]
    methods: tuple[str, ...]

    @property
    def published(self) -> bool:
        return bool(self.runs[0]["source"] == "published")

    def settings(self) -> dict[str, Any]:
        """The recipe with dotted keys; a part's own key is its name: `balancer` top_pn, `balancer.p` 8."""
        return _flat({k: v for k, v in self.runs[0]["recipe"].items() if k not in APART})


@dataclass(frozen=True)
class Side:
    """One method of one configuration: a column of the report."""

    label: str
    configuration: Configuration
    method: str

    @property
    def published(self) -> bool:
        return self.configuration.published

    def arm(self) -> Arm:
        return Arm(self.label, tuple(f"{run['id']}:{self.method}" for run in self.configuration.runs))


@dataclass(frozen=True)
class LineUp:
    """`left_out` are runs of a sweep that have not finished."""

    configurations: tuple[Configuration, ...]
    sides: tuple[Side, ...]
    baseline: Side
    left_out: tuple[Row, ...]


def line_up(
    registry: Registry, names: Sequence[str], baseline: str | None = None, methods: Sequence[str] = ()
) -> LineUp:
    """What `names` and `baseline` stand for.

    A name is a sweep (all its finished runs), a run (id, start of one, name or `latest`), or RUN:METHOD. Runs that
    differ in seed only, and those of one arm of a sweep, are one configuration. It takes part with `methods`; without
    these, a published table with all of its columns, a configuration that stands against itself with all its methods
    but the oracle, which sees the answers, and any other with what was trained last.
    `baseline` is RUN:METHOD, where a run stands for its whole configuration, a configuration's label may stand for
    the run, and METHOD alone is the first configuration's; without one, random of the only configuration, or what the
    first of several trained last.

    Raises RegistryError for a name or a method that is not there, and where nothing is left to compare.
    """
    found, left_out = _runs(registry, names)
    configurations = _configurations(registry, [one.run for one in found])
    own = [c for c in configurations if not c.published]
    if baseline is None:
        baseline = FLOOR if len(own) < 2 else _methods(own[0], methods[:1], False)[0]
    base, base_method = _baseline(registry, configurations, baseline)
    picked: list[tuple[Configuration, str]] = []
    for configuration in configurations:
        named = [one.method for one in found if one.method and one.run["id"] in _ids(configuration)]
        wanted = list(dict.fromkeys(named)) or methods
        picked += [(configuration, m) for m in _methods(configuration, wanted, own == [base])]
    picked = [(c, m) for c, m in picked if (_ids(c), m) != (_ids(base), base_method)]
    if not picked:
        raise RegistryError(
            f"there is nothing to compare with {base.label}:{base_method}.", "Name another run, or more methods."
        )
    labels = _side_labels(picked, (base, base_method))
    sides = tuple(Side(label, c, m) for label, (c, m) in zip(labels[1:], picked, strict=True))
    return LineUp(tuple(configurations), sides, Side(labels[0], base, base_method), tuple(left_out))


@dataclass(frozen=True)
class _Named:
    run: Row
    method: str | None = None


def _runs(registry: Registry, names: Sequence[str]) -> tuple[list[_Named], list[Row]]:
    """The runs that take part, in the order of `names`, and those of sweeps that have not finished."""
    runs = registry.runs()
    found: dict[tuple[str, str | None], _Named] = {}
    left_out: list[Row] = []
    for name in names:
        if swept := [r for r in reversed(runs) if r["sweep"] == name]:
            left_out += [r for r in swept if r["status"] != "done"]
            if not any(r["status"] == "done" for r in swept):
                raise RegistryError(f"no run of the sweep {name} has finished yet.", "Go on with `leverplus sweep`.")
            chosen_here = [_Named(r) for r in swept if r["status"] == "done"]
        else:
            chosen_here = [_named(registry, name, runs)]
        for one in chosen_here:
            found.setdefault((one.run["id"], one.method), one)
    twice = [one for one in found.values() if one.method is not None and (one.run["id"], None) in found]
    for one in twice:
        raise RegistryError(
            f"run {one.run['name']} is named with and without the method {one.method}.", "Name it one way, or --method."
        )
    return list(found.values()), left_out


def _named(registry: Registry, name: str, runs: Sequence[Row]) -> _Named:
    run, method = split_name(name)
    if method is not None and not any(name in (r["id"], r["name"]) for r in runs):
        return _Named(registry.resolve(run), method)
    try:
        return _Named(registry.resolve(name))
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
                f"runs {ids} are of one arm and one seed, with other recipes.", "Name the runs that shall be compared."
            )
    labels = _labels(list(groups.values()))
    return [
        Configuration(label, tuple(sorted(group, key=lambda run: run["seed"])), _shared_methods(registry, group))
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def _key(run: Row) -> str:
    if run["source"] == "published":
        return str(run["id"])
    if run["sweep"] and run["arm"] is not None:
        return canonical_json([run["sweep"], run["arm"]])
    return canonical_json({k: v for k, v in run["recipe"].items() if k not in APART} or run["id"])


def _shared_methods(registry: Registry, group: Sequence[Row]) -> tuple[str, ...]:
    if group[0]["source"] == "published":
        return tuple(group[0]["recipe"]["published"]["methods"])
    held = [set(members(registry, run["id"])) for run in group]
    return tuple(sorted(set.intersection(*held), key=method_order))


def _methods(configuration: Configuration, wanted: Sequence[str], alone: bool) -> list[str]:
    known = {m: Member(configuration.runs[0], m, {}) for m in configuration.methods}
    if wanted:
        return [chosen(known, m) for m in wanted]
    if configuration.published:
        return list(configuration.methods)
    return [m for m in known if m != CEILING] if alone else [chosen(known, None)]


def _baseline(registry: Registry, configurations: Sequence[Configuration], text: str) -> tuple[Configuration, str]:
    name, method = split_name(text)
    if method is None:
        name, method = "", text
    if not name:
        found = configurations[0]
    elif not (labelled := [c for c in configurations if c.label == name]):
        run = registry.resolve(name)
        inside = [c for c in configurations if run["id"] in _ids(c)]
        found = inside[0] if inside else Configuration(run["name"], (run,), _shared_methods(registry, [run]))
    else:
        found = labelled[0]
    if method not in found.methods:
        hint = did_you_mean(method, found.methods)
        raise RegistryError(
            f"no method '{method}' in {found.label} to be the baseline.", f"{hint} Say --baseline RUN:METHOD."
        )
    return found, method


def _ids(configuration: Configuration) -> tuple[str, ...]:
    return tuple(run["id"] for run in configuration.runs)


# What they are called.


def _labels(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Of each group: what its sweep varies, its name where no other has it, the settings that differ, or an id."""
    firsts = [group[0] for group in groups]
    arms = [run["arm"] for run in firsts]
    if len({run["sweep"] for run in firsts}) == 1 and all(arm is not None for arm in arms):
        labels = [_arm(arm) or str(run["sweep"]) for arm, run in zip(arms, firsts, strict=True)]
        if len(set(labels)) == len(labels):
            return labels
    names = [run["name"] for run in firsts]
    if len(set(names)) == len(names):
        return names
    flat = [_flat({k: v for k, v in run["recipe"].items() if k not in APART}) for run in firsts]
    apart = [
        key
        for key in dict.fromkeys(k for one in flat for k in one)
        if len({canonical_json(f.get(key)) for f in flat}) > 1
    ]
    labels = [_settings({key: one[key] for key in apart if key in one}) for one in flat]
    if len(apart) <= NAMED_BY and all(labels) and len(set(labels)) == len(labels):
        return labels
    return [f"{run['name']} {run['id'][:6]}" for run in firsts]


def _side_labels(picked: Sequence[tuple[Configuration, str]], base: tuple[Configuration, str]) -> list[str]:
    """The baseline's label, then those of `picked`: the method, the configuration, or both where one does not tell."""
    everyone = [base, *picked]
    if len({_ids(c) for c, _ in everyone}) == 1:
        return [method for _, method in everyone]
    own = {method for c, method in picked if not c.published}
    if not any(c.published for c, _ in picked) and len(own) == 1:
        return [c.label if method in own else f"{c.label} · {method}" for c, method in everyone]
    return [f"{c.label} · {method}" for c, method in everyone]


def _arm(arm: Mapping[str, Any]) -> str:
    """`top_pn, mixed`: what is swept over, with its setting where the value does not speak for itself."""
    return ", ".join(_text(v) if k in (*PARTS, "recipe") else f"{k}={_text(v)}" for k, v in arm.items())


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = under if under and key == "name" else f"{under}.{key}" if under else key
        found |= _flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found
