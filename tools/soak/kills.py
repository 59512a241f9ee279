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
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tools.soak.comparison import damaged, differ, files, registry_rows, responses
from tools.soak.launcher import Ended, launcher
from tools.soak.topic import Case, Outcome, Topic

TINY_PARTS = Path(__file__).resolve().parents[2] / "tests" / "core" / "pipeline" / "tiny_parts.py"
WHERE = ("--registry", "sqlite:///r.db", "--work", "work")
TINY = ("demo", "--plugin", str(TINY_PARTS))
EPOCHS = ("training.sft.epochs=1", "training.rce.epochs=1", "training.grpo.epochs=1", "training.mrt.epochs=0")
SETTINGS = (
    "dataset=tiny", "model=tiny", "encoder=tiny", "sampler={name: mixed, k: 5}", "balancer={name: keep_all}",
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
        stored = responses(place / "work")
        again = launcher().run(COMMANDS[name].words, place)
        faults = [] if again.code == 0 else [f"the same command again ends with {again.code}: {again.stderr}"]
        if not faults:
            faults = list(differences(whole.ended, place))
            if _printed(again) != _printed(whole.end):
                faults.append("it prints something else")
            asked = len(responses(place / "work")) - len(stored)
            if (calls := _calls(again)) is not None and calls != asked:
                faults.append(f"{calls} prompts were computed where {asked} were not known: measurements were lost")
        figures = {"command": name, "kind": kind, "killed": killed.code == -9, "seconds": round(again.seconds, 2),
                   "kept": len(stored)}  # fmt: skip
        return Outcome(faults, figures)

    return Case(f"{name}, {kind} {number + 1} of {of}", trial)


def _printed(end: Ended) -> str:
    """On standard output; what is finished may be reused, and then takes less time."""
    return " ".join(re.sub(r"\d+\.\d s", "", end.stdout).replace("reused", "done").split())


def _calls(end: Ended) -> int | None:
    found = re.findall(r"([\d,]+) model calls", end.stderr)
    return int(found[0].replace(",", "")) if len(found) == 1 else None


def differences(expected: Path, found: Path) -> Iterator[str]:
    """What an undisturbed command left in `expected` and is not, or is otherwise, in `found`."""
    if (expected / "r.db").exists():
        urls = (f"sqlite:///{folder / 'r.db'}" for folder in (expected, found))
        yield from differ("the registry", *map(registry_rows, urls))
    yield from differ("the response cache", *(responses(folder / "work") for folder in (expected, found)))
    yield from differ("the files", files(expected), files(found))
    yield from damaged(found)


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
        "was asked again. Features of images may differ in their last bits where their encoding was killed, since a "
        "resumed batch of the model holds other images. A kill may leave a hidden scratch file beside a report or a "
        "cached feature; stages remove theirs.",
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
