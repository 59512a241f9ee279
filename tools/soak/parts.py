"""Hostile parts: a part of every kind that breaks its contract in every way, in a real run each.

What must hold: the run ends in one line that names the part, its distribution and, where the call is about one, the
question; the registry says `failed`, and no stage's result and no cell is written that the part had a hand in.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from leverplus_core import Catalog, LeverplusError, PluginError, Recipe, Registry, run
from leverplus_core.errors import DataError, LeverplusWarning
from leverplus_core.pipeline.exporting import export_data
from leverplus_core.pipeline.importing import import_data
from tools.soak import part_identity
from tools.soak.topic import Case, Outcome, Topic

FILE = Path(__file__).parent / "hostile_parts.py"
WORLD = ("dataset", "model", "encoder", "sampler", "balancer", "reward")
SETTINGS = [
    "threads=1", "selector={name: pairwise, width: 8}", "scoring.questions=16",
    "scoring.beam_search={num_beams: 1, shots: 2}", "scoring.candidates.questions=null",
    "scoring.candidates={shots: [1, 2], num_beams: 1, samples: {1.0: 1}, retrieval: 1, random: 1}",
    "training.sft.epochs=1", "training.rce.epochs=1", "training.grpo.epochs=0", "training.mrt.epochs=0",
    "evaluation.shots=[1, 2]", "evaluation.sizes=[6]", "evaluation.ablations=[]", "evaluation.baselines=[zero_shot]",
]  # fmt: skip
OF_A_QUESTION = {("sampler", "pool"), ("balancer", "select"), ("reward", "compute")}
"""Calls about one question, which a message names."""
LONGEST = 1500
"""Characters of a line that tells what a part did."""
TEXT = """\
{count} runs, each with one part that breaks its contract in one way: it returns None, text, an object, too few or
too many, NaN, repeats, the question's own image, ids that do not exist, or it raises, exits or interrupts. Each ended
in one line that names the part, its distribution, the call and, where it is about one, the question; the run is
`failed` in the registry, and no stage counts as finished that the part had spoiled. A listener that fails is one
warning, and its run goes on. The longest took {longest:.1f} s.

{table}

Code in a part's identity: after an edit of a part, for {edited} kinds of parts, exactly the stages that it decides have
other fingerprints. {ways} ways of having a part were tried with pip itself (a plugin file, a wheel, an editable
project, one with its source in a folder): its module, a helper in its package, a helper beside it and a network that it
only names were edited, the version was raised, a wheel was built again; each changed the identity. A time stamp, a text
and a module that the part does not import did not."""
SHORT = ("None", "NaN", "one short", "exits", "interrupts", "repeats")
"""The ways of the short form, for one method of each kind."""


def topic(short: bool) -> Topic:
    """Every kind, method and way; the short form some of each kind."""
    ways = [(kind, by, how) for (kind, by), found in _hostile().BAD.items() for how in found]
    if short:
        first = {kind: by for kind, by in reversed(_hostile().BAD)}
        ways = [(kind, by, how) for kind, by, how in ways if first[kind] == by and how in SHORT[::2]][::2]
    cases = [Case(f"{kind}: {by}: {how}", partial(_run, kind, by, how)) for kind, by, how in ways]
    return Topic("Hostile parts", [*cases, *part_identity.cases(_world, FILE, short)], _summary)


@cache
def _catalog() -> Catalog:
    return Catalog.load([FILE], disabled="")


def _hostile() -> Any:
    _catalog()
    return sys.modules[FILE.stem]


def _recipe(kind: str, by: str, how: str) -> Recipe:
    """The small world with one part spoiled."""
    spoiled = f"by: {by}, how: {json.dumps(how)}"
    override = {
        "trainer": f"training.hostile={{epochs: 1, {spoiled}}}",
        "selector": f"evaluation.baselines=[{{name: hostile, {spoiled}}}]",
        "network": f"selector={{name: hostile_network, {spoiled}}}",
        "stage": f"stages=[{{name: hostile, {spoiled}}}]",
        "listener": "seed=0",
    }.get(kind, f"{kind}={{name: hostile, {spoiled}}}")
    return _world(override, without=kind)


def _world(override: str, without: str = "") -> Recipe:
    """The small world with an override, which puts another part in place of the one of the kind `without`."""
    return Recipe.load("demo", [*SETTINGS, override], {of: "world" for of in WORLD if of != without})


def _run(kind: str, by: str, how: str, folder: Path) -> Outcome:
    url, listener = f"sqlite:///{folder}/r.db", _hostile().LISTENER
    listener["how"] = how if kind == "listener" else ""
    began, faults, line = time.perf_counter(), [], ""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if kind in ("importer", "exporter"):
                _convert(kind, by, how, folder)
            else:
                run(_recipe(kind, by, how), url, folder / "work", catalog=_catalog())
        line = next((str(w.message) for w in caught if issubclass(w.category, LeverplusWarning)), "")
        if kind != "listener":
            faults.append("the run ended well")
    except PluginError as error:
        line = str(error)
    except LeverplusError as error:
        line = str(error)
        if kind == "importer" and isinstance(error, DataError):  # it gives what files may hold, and the file is named
            return Outcome(_left(url, folder, kind), {"seconds": time.perf_counter() - began})
        faults.append(f"it does not name the plugin: {line}")
    except BaseException as error:
        faults.append(f"a trace: {type(error).__name__}: {error!r:.300}")
    finally:
        listener["how"] = ""
    name = "hostile_network" if kind == "network" else "hostile"
    wanted = [FILE.name, f"{by}()" if kind != "listener" else by]
    wanted += [] if kind == "listener" else [f"{'selector' if kind == 'network' else kind} '{name}'"]
    if line and not faults:
        faults += [f"the line lacks {word!r}: {line}" for word in wanted if word not in line]
        if "\n" in line or len(line) > LONGEST:
            faults.append(f"it is no line: {line:.500}")
        if (kind, by) in OF_A_QUESTION and not re.search(r"question (train|validation)\d+", line):
            faults.append(f"the line names no question: {line}")
    return Outcome([*faults, *_left(url, folder, kind)], {"seconds": time.perf_counter() - began})


def _convert(kind: str, by: str, how: str, folder: Path) -> None:
    """Import a file, and export what was imported, with one of the two spoiled."""
    parts = {of: _catalog().build(of, "world", {}) for of in ("importer", "exporter")}
    parts[kind] = _catalog().build(kind, "hostile", {"by": by, "how": how})
    (folder / "file").write_text("a file")
    import_data(parts["importer"], "hostile", folder / "file", folder / "imported")
    export_data(parts["exporter"], folder / "imported", folder / "exported")


def _left(url: str, folder: Path, kind: str) -> list[str]:
    """What is wrong with what the run left behind."""
    if kind in ("importer", "exporter"):
        sound = {"file", "imported"} if kind == "exporter" else {"file"}
        return [f"{p.name} is left" for p in folder.iterdir() if p.name not in sound]
    if not (folder / "r.db").exists():
        return [] if not (folder / "work").exists() else ["stages without a registry"]
    with Registry(url) as registry:
        states = [row["status"] for row in registry.runs()]
        cells = registry.sql("SELECT count(*) FROM cells")[1][0][0]
        done = {row[0] for row in registry.sql("SELECT name FROM stages WHERE status = 'done'")[1]}
    finished = {p.parent.name.rpartition("-")[0] for p in folder.glob("work/stages/*/provenance.json")}
    wrong = [f"temporary files are left: {p.name}" for p in folder.rglob("*.tmp*")]
    if kind == "listener":
        return wrong + ([] if states == ["done"] and cells else [f"the run is {states} with {cells} cells"])
    if states != ["failed"]:
        wrong.append(f"the run is {states}")
    if finished != done:
        wrong.append(f"finished stages {sorted(finished)}, the registry says {sorted(done)}")
    return wrong


def _summary(found: Mapping[str, Outcome]) -> str:
    kinds = Counter(name.partition(":")[0] for name in found)
    edited, ways = kinds.pop("edited", 0), kinds.pop("installed", 0)
    longest = max((float(o.figures["seconds"]) for n, o in found.items() if n.partition(":")[0] in kinds), default=0.0)
    rows = [f"| {kind} | {count} |" for kind, count in kinds.items()]
    table = "\n".join(["| kind | runs |", "|---|---|", *rows])
    return TEXT.format(count=sum(kinds.values()), longest=longest, table=table, edited=edited, ways=ways)
