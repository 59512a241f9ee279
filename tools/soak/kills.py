"""Kill -9 at random moments and at every kind of file operation: the same command again ends as if nothing had been.

A case has a state in which a command begins, kills it, repeats it, and compares all that is left with what an
undisturbed command left: the registry row by row, the stages byte by byte, what the model was asked and what it cost.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tools.soak.launcher import Ended, launcher
from tools.soak.topic import Case, Outcome, Topic

TINY_PARTS = Path(__file__).resolve().parents[2] / "tests" / "core" / "pipeline" / "tiny_parts.py"
WHERE = ("--registry", "sqlite:///r.db", "--work", "work")
TINY = (
    "demo", "--plugin", str(TINY_PARTS), "--dataset", "tiny", "--model", "tiny", "--encoder", "tiny",
    "--sampler", "mixed:k=5", "--balancer", "keep_all",
)  # fmt: skip
EPOCHS = ("training.sft.epochs=1", "training.rce.epochs=1", "training.grpo.epochs=1", "training.mrt.epochs=0")
SETTINGS = (
    "threads=1", "selector.width=16", "scoring.questions=20", "scoring.beam_search={num_beams: 2, shots: 2}",
    "scoring.candidates={shots: [1, 2], num_beams: 1, samples: {1.0: 1}, retrieval: 1, random: 1}",
    "scoring.candidates.questions=null", *EPOCHS, "evaluation.shots=[1, 2]", "evaluation.sizes=[5, 10]",
    "evaluation.ablations=[]", "evaluation.baselines=[zero_shot, random, text_knn]",
)  # fmt: skip
DEMO = (
    "threads=1", "dataset.train=40", "dataset.validation=24", "sampler.k=5", "scoring.questions=12",
    "scoring.beam_search={num_beams: 1, shots: 1, expand_top_k: 1}", "scoring.candidates.questions=null",
    "scoring.candidates={shots: [1], num_beams: 1, samples: {}, retrieval: 1, random: 1}", "selector.width=16",
    *EPOCHS, "evaluation.shots=[1]", "evaluation.sizes=[10]", "evaluation.ablations=[]",
    "evaluation.baselines=[zero_shot, text_knn]",
)  # fmt: skip


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


RUN = ("run", *TINY, *_set(SETTINGS), *WHERE)


@dataclass(frozen=True)
class Command:
    """A command, and whether a finished run or a file of imported data is there when it begins."""

    words: Sequence[str]
    after_run: bool = False
    with_data: bool = False


COMMANDS: Mapping[str, Command] = {
    "run": Command(RUN),
    "run with the demo model": Command(("run", "demo", *_set(DEMO), *WHERE)),
    "sweep": Command(("sweep", *TINY, "--over", "reward=separated,mixed", *_set(SETTINGS), *WHERE)),
    "import": Command(("import", "rl-data", "rl.json", "-o", "imported", "--work", "work"), with_data=True),
    "train on imported data": Command(
        ("run", "--imported", "rl.json", "--reward", "separated", "--balancer", "keep_all",
         *_set(("threads=1", "selector.width=16", *EPOCHS[1:])), *WHERE),
        with_data=True,
    ),
    "report": Command(("report", "latest", "-o", "report.md", "--registry", "sqlite:///r.db"), after_run=True),
    "leaderboard": Command(("leaderboard", "--json", "--registry", "sqlite:///r.db"), after_run=True),
}  # fmt: skip
KILLS: Mapping[str, tuple[int, int]] = {
    "run": (40, 16),
    "run with the demo model": (6, 2),
    "sweep": (14, 6),
    "import": (10, 2),
    "train on imported data": (12, 4),
    "report": (8, 2),
    "leaderboard": (3, 1),
}
"""Command -> kills at operations, and at random moments."""


@dataclass(frozen=True)
class Reference:
    """What the undisturbed command left: the folder in which it began, the one in which it ended, and its end."""

    began: Path
    ended: Path
    end: Ended


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kills")


@cache
def reference(name: str) -> Reference:
    """Of a command. Raises RuntimeError where it fails undisturbed."""
    command = COMMANDS[name]
    began, ended = (Path(_scratch().name) / f"{name} {what}" for what in ("began", "ended"))
    if command.after_run:
        shutil.copytree(reference("run").ended, began)
    else:
        began.mkdir()
    if command.with_data:
        (began / "rl.json").write_text(json.dumps(_measured()))
    shutil.copytree(began, ended)
    return Reference(began, ended, _undisturbed(command.words, ended))


def _measured() -> dict[str, Any]:
    """Candidates of 30 questions as a Lever-Plus file has them; questions and demonstrations are numbers."""
    draw, content = random.Random(0), dict[str, Any]()
    for question in range(30):
        pool = draw.sample([i for i in range(30) if i != question], 6)
        candidates = []
        for pointer in itertools.islice(itertools.permutations(range(6), 2), 0, 30, 5):
            score = draw.choice((0.0, 0.3, 0.6, 1.0))
            candidates.append({
                "pointer": pointer, "pointer_global": [pool[i] for i in pointer], "gen_method": "beam",
                "vqa_pred_answer": "red", "vqa_correct": int(score >= 0.5), "vqa_acc_score": score,
                "vqa_gt_prob": draw.random(),
            })  # fmt: skip
        query = {"query_id": question, "question": f"what is in picture {question}?"}
        content[str(question)] = {"query": query, "candidate_pool_ids": pool, "pointer_candidates": candidates}
    return content


def _undisturbed(words: Sequence[str], folder: Path) -> Ended:
    end = launcher().run(words, folder)
    if end.code != 0:
        raise RuntimeError(f"{' '.join(words[:2])} fails undisturbed: {end.stderr}")
    return end


def _case(name: str, kind: str, number: int, of: int) -> Case:
    """The `number`-th of `of` kills of a command, by operations or at random moments."""

    def trial(folder: Path) -> Outcome:
        whole = reference(name)
        place = folder / "killed"
        shutil.copytree(whole.began, place)
        draw = random.Random(f"{name} {kind} {number}")
        if kind == "operation":
            total = sum(whole.end.operations.values())
            at = 1 + int(total * (number + draw.random()) / of)
            killed = launcher().run(COMMANDS[name].words, place, operation=at)
        else:
            killed = launcher().run(COMMANDS[name].words, place, seconds=whole.end.seconds * (number + 1) / (of + 1))
        if killed.code not in (0, -9):
            return Outcome([f"the killed command ended with {killed.code}: {killed.stderr}"])
        stored = _responses(place)
        again = launcher().run(COMMANDS[name].words, place)
        faults = [] if again.code == 0 else [f"the same command again ends with {again.code}: {again.stderr}"]
        if not faults:
            faults = list(differences(whole.ended, place))
            if re.sub(r"\d+\.\d s", "", again.stdout) != re.sub(r"\d+\.\d s", "", whole.end.stdout):
                faults.append("it prints something else")
            asked = len(_responses(place)) - len(stored)
            if (calls := _calls(again)) is not None and calls != asked:
                faults.append(f"{calls} prompts were computed where {asked} were not known: measurements were lost")
        figures = {"command": name, "kind": kind, "killed": killed.code == -9, "seconds": round(again.seconds, 2),
                   "kept": len(stored)}  # fmt: skip
        return Outcome(faults, figures)

    return Case(f"{name}, {kind} {number + 1} of {of}", trial)


def _calls(end: Ended) -> int | None:
    found = re.findall(r"([\d,]+) model calls", end.stderr)
    return int(found[0].replace(",", "")) if len(found) == 1 else None


# --- comparing what two folders hold ---

LEFT_OUT = {
    "created_at", "started_at", "finished_at", "alive_at", "asked_at", "pid", "host", "environment", "git", "seconds",
    "reused", "created", "id",
}  # fmt: skip
"""Columns and keys that differ between any two equal runs; `id` numbers evaluations."""


def differences(expected: Path, found: Path) -> Iterator[str]:
    """What an undisturbed command left in `expected` and is not, or is otherwise, in `found`."""
    yield from _differ("the registry", _tables(expected), _tables(found))
    yield from _differ("the response cache", _responses(expected), _responses(found))
    for folder in (expected, found):
        for database in folder.rglob("*.db"), folder.rglob("*.sqlite"):
            for file in database:
                with sqlite3.connect(file) as c:
                    state = c.execute("PRAGMA integrity_check").fetchone()[0]
                c.close()
                if state != "ok":
                    yield f"{file.name} is damaged: {state}"
    yield from _differ("the files", _files(expected), _files(found))


def _differ(what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> Iterator[str]:
    for state, keys in (("lacks", expected.keys() - found.keys()), ("has besides", found.keys() - expected.keys())):
        if keys:
            yield f"{what} {state} {len(keys)}, such as {min(map(str, keys))[:200]}"
    other = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    if other:
        key = min(other, key=str)
        yield f"{what}: {len(other)} differ, such as {key}: {str(found[key])[:200]} for {str(expected[key])[:200]}"


def _tables(folder: Path) -> dict[tuple[str, str], int]:
    """(table, row as JSON) -> how often it is there; of evaluations, which are added by each attempt, whether it is."""
    file, rows = folder / "r.db", Counter[tuple[str, str]]()
    if not file.exists():
        return rows
    with sqlite3.connect(file) as c:
        c.row_factory = sqlite3.Row
        names = [row[0] for row in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in c.execute(f"SELECT * FROM {name}"):
                key = (name, json.dumps(_same({k: _parsed(row[k]) for k in row.keys()}), sort_keys=True))  # noqa: SIM118
                rows[key] = 1 if name == "evaluations" else rows[key] + 1
    c.close()
    return rows


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _same(value: Any) -> Any:
    """`value` without what differs between equal runs."""
    if isinstance(value, dict):
        return {k: _same(v) for k, v in value.items() if k not in LEFT_OUT}
    return [_same(v) for v in value] if isinstance(value, list) else value


def _responses(folder: Path) -> dict[str, str]:
    file = folder / "work" / "responses.sqlite"
    if not file.exists():
        return {}
    with sqlite3.connect(file) as c:
        there = c.execute("SELECT count(*) FROM sqlite_master WHERE name = 'responses'").fetchone()[0]
        found = {key.hex(): value for key, value in c.execute("SELECT key, value FROM responses")} if there else {}
    c.close()
    return found


def _files(folder: Path) -> dict[str, Any]:
    """Name -> content, of JSON without what differs between equal runs; databases and leases aside."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir() or re.search(r"\.(db|sqlite)(-wal|-shm)?$|^work/leases/|^\.[^/]+\.\d+$", name):
            continue
        content: Any = file.read_bytes()
        if file.suffix == ".json":
            content = _same(json.loads(content))
        elif file.name in ("asked.bin", "computed.bin"):
            content = sorted(content[i : i + 8] for i in range(0, len(content), 8))
        found[name] = content
    return found


def topic(short: bool) -> Topic:
    """Kills of every command that writes, and of one that reads."""
    kills = {"run": (2, 0)} if short else KILLS
    cases = [
        _case(name, kind, number, of)
        for name, counts in kills.items()
        for kind, of in zip(("operation", "moment"), counts, strict=True)
        for number in range(of)
    ]
    return Topic("Kills", cases, _summary)


def _summary(found: Mapping[str, Outcome]) -> str:
    rows = [outcome.figures for outcome in found.values() if outcome.figures]
    lines = [
        "A process was killed (`kill -9`) just before an operation that changes a file (opening one for writing, "
        "renaming, linking, cutting, removing, an fsync, a statement by which SQLite changes something), spread over "
        "all that the command makes, or at a moment spread over its time. Then the same command ran again. Compared "
        "with an undisturbed one: the registry row by row, the files of all stages byte by byte (times aside), the "
        "answers of the model, the cost in prompts, and what was printed; no prompt that was answered before the kill "
        "was asked again. A kill may leave a hidden scratch file beside a report; stages remove theirs.",
        "",
        "| command | kills at operations | at moments | ended before its kill | longest resumption |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["command"] for row in rows):
        of = [row for row in rows if row["command"] == name]
        at = Counter(row["kind"] for row in of if row["killed"])
        longest = max(row["seconds"] for row in of)
        late = sum(not row["killed"] for row in of)
        lines.append(f"| {name} | {at['operation']} | {at['moment']} | {late} | {longest:.1f} s |")
    return "\n".join([*lines, "", f"Kills in all: {sum(row['killed'] for row in rows)}."])
