"""Another harness's samples as a run of the registry: a method per log, with predictions and the documents' hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from leverplus_core.errors import RegistryError
from leverplus_core.io import fingerprint
from leverplus_core.records import Prediction, Question
from leverplus_core.registry import tables
from leverplus_core.registry.database import alone
from leverplus_core.registry.evaluations import insert_evaluation
from leverplus_core.registry.labels import check_name
from leverplus_core.registry.questions import insert_questions
from leverplus_core.registry.runs import now
from leverplus_core.registry.scores import sample_names

SPLIT = "log"
"""What stands for the split of an imported run: a log does not say which it was."""
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class ImportedMethod:
    """A model's answers to the questions of one run, in the order of evaluation; `digests` are the hashes of the
    documents, by question id. `repeats` is how often a question was asked at most, `left_out` how many have no score.
    """

    method: str
    model: str
    shots: int
    files: tuple[str, ...]
    harness: str
    predictions: tuple[Prediction, ...]
    questions: tuple[Question, ...]
    digests: Mapping[str, str]
    repeats: int
    left_out: int


def insert_samples(
    c: Connection, name: str, dataset: str, metric: str, harness: str, methods: Sequence[ImportedMethod], note: str
) -> str:
    """Add `methods` to the imported run `name`, or make it, in the transaction that `c` is in; returns its id.

    Raises RegistryError for a name that another run has or that none can have, a run of another dataset, metric or
    harness, a method that the run has already, and a question whose document is another than it was recorded with.
    """
    alone(c)  # of two that take one name at once, the second adds to it or is refused
    check_name(name)
    content = fingerprint(["samples", harness, dataset])
    run_id = _run(c, name, dataset, content, metric, harness, methods, note)
    for one in methods:
        _refuse_other_documents(c, content, dataset, one)
        insert_questions(c, content, one.questions, (), one.digests)
        _insert_answers(c, run_id, content, one)
        asked = [(p.question_id, p.image_id) for p in one.predictions]
        identity = fingerprint([run_id, one.method])
        insert_evaluation(c, run_id, identity, SPLIT, asked, [one.method], False, now())
    return run_id


def _run(
    c: Connection, name: str, dataset: str, content: str, metric: str, harness: str,
    methods: Sequence[ImportedMethod], note: str,
) -> str:  # fmt: skip
    """The id of the run, written or brought up to date."""
    t = tables.runs
    found = c.execute(select(t).where(or_(t.c.name == name, t.c.id == name)).order_by(t.c.started_at.desc())).first()
    logs: list[dict[str, Any]] = [
        {"method": m.method, "model": m.model, "harness": m.harness, "files": list(m.files), "repeats": m.repeats,
         "left_out": m.left_out}
        for m in methods
    ]  # fmt: skip
    if found is not None:
        if found.source != "imported":
            raise RegistryError(f"the registry holds a run named '{name}' already.", "Choose another with --name.")
        known = found.recipe["imported"]
        for what, ours, theirs in (
            ("dataset", found.dataset, dataset), ("metric", found.recipe["task"], metric),
            ("harness", known["harness"], harness),
        ):  # fmt: skip
            if ours != theirs:
                raise RegistryError(f"run {name} has the {what} {ours}, this log {theirs}.",
                                    "Choose another name with --name.")  # fmt: skip
        there = [one["method"] for one in known["logs"]]
        if twice := [m.method for m in methods if m.method in there]:
            raise RegistryError(f"run {name} has a method '{twice[0]}' already.", "Name this one with --method.")
        logs = known["logs"] + logs
    recipe = {
        "imported": {"harness": harness, "logs": logs},
        "task": metric,
        "dataset": {"name": dataset},
        "evaluation": {"split": SPLIT, "baselines": [logs[0]["method"]]},
    }
    models = ", ".join(dict.fromkeys(one["model"] for one in logs if one["model"]))
    texts = dict.fromkeys(part for part in (found.note if found is not None else "", note) if part)
    changed: dict[str, Any] = {"recipe": recipe, "model": models, "note": " ".join(texts), "finished_at": now()}
    if found is not None:
        c.execute(update(t).where(t.c.id == found.id).values(changed))
        return str(found.id)
    identity = fingerprint(["imported", name, content, metric])
    moment = now()
    c.execute(
        insert(t).values(
            id=identity[:12], name=name, fingerprint=identity, status="done", dataset=dataset, seed=0, parts=[],
            environment={}, git={}, created_at=moment, started_at=moment, dataset_fingerprint=content,
            source="imported", **changed,
        )
    )  # fmt: skip
    return identity[:12]


def _refuse_other_documents(c: Connection, content: str, dataset: str, one: ImportedMethod) -> None:
    t = tables.questions.c
    known = {i: digest for i, digest in c.execute(select(t.id, t.digest).where(t.dataset_fingerprint == content))}
    other = [i for i, digest in one.digests.items() if (before := known.get(i)) and digest and before != digest]
    if other:
        raise RegistryError(
            f"{len(other)} of {len(one.digests)} samples in {one.files[0]}, the first {other[0]}, are not the "
            f"questions of these ids in what was imported of {dataset} before.",
            "Only answers to the same questions can be compared. For another version of the task give --dataset.",
        )


def _insert_answers(c: Connection, run_id: str, content: str, one: ImportedMethod) -> None:
    """Write the predictions and their cell. A position names one question of the run, as everywhere: a question that an
    earlier log of it answered keeps its position, others come behind."""
    from leverplus_core.statistics import accuracy_interval

    t = tables.predictions.c
    places = {i: place for i, place in c.execute(select(t.question_id, t.position).where(t.run_id == run_id))}
    behind = max(places.values(), default=-1) + 1
    for p in one.predictions:
        if p.question_id not in places:
            places[p.question_id] = behind
            behind += 1
    answers, n = sorted(one.predictions, key=lambda p: places[p.question_id]), len(one.predictions)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = [
            {"run_id": run_id, "position": places[p.question_id], **asdict(p), "demonstrations": []}
            for p in answers[start : start + ROWS_AT_ONCE]
        ]
        c.execute(insert(tables.predictions), rows)
    interval = accuracy_interval([p.accuracy for p in answers], [p.image_id for p in answers])
    sample = sample_names(content, ((p.question_id, p.image_id) for p in answers), [n])[n]
    c.execute(
        insert(tables.cells).values(
            run_id=run_id, method=one.method, shots=one.shots, n=n, accuracy=interval.mean, ci_low=interval.low,
            ci_high=interval.high, sample=sample,
        )
    )  # fmt: skip
