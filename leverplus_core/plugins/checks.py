"""What the contract of each kind says of a result: checks that give it back in the contract's types, or raise `Breach`.

A check costs little beside the call: arrays are checked as arrays.
"""

from __future__ import annotations

import importlib
import json
import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from numbers import Integral, Real
from typing import Any

import numpy as np

from leverplus_core.plugins.contracts import MEASUREMENTS, Balancer, Bank, Dataset, Floats, Part, Reward, Sampler, Size
from leverplus_core.plugins.format_contracts import ResultsImporter, SamplesImporter
from leverplus_core.records import AnswerLogprob, Demonstration, Ids, Image, PublishedTable, Question, SampleLog

Given = Mapping[str, Any]
"""The arguments of a call, by the names of the contract."""
Check = Callable[[Any, Given, Any], Any]
"""Part, arguments, result -> the result in the contract's types. Raises Breach."""

UNIT = 1e-2
"""Largest difference of a unit row's length from 1: rows in half precision have one of a thousandth."""
BLOCKS = ("image", "text", "state")


class Breach(Exception):
    """A result that is not what its contract says: what is wrong, what it must be, and the question if known."""

    def __init__(self, wrong: str, must: str, question: str = "") -> None:
        super().__init__(wrong)
        self.wrong, self.must, self.question = wrong, must, question


def class_defect(kind: str, part: type[Part]) -> str:
    """What is wrong with the constants of a part's class that core reads; '' for nothing."""
    constants: dict[str, dict[str, Collection[object]]] = {
        "trainer": {"learns_from": ("sequences", "candidates")},
        "exporter": {"content": ("candidates", "sequences", "embeddings")},
        "encoder": {"needs_model": (False, True)},
    }
    for name, known in constants.get(kind, {}).items():
        if (found := getattr(part, name, None)) not in known:
            return f"its {name} must be one of {', '.join(map(str, known))}, not {found!r}"
    return ""


def memory(part: Part) -> dict[Any, Any]:
    """What is remembered of earlier calls of a part; a copy with other settings has nothing to remember."""
    remembered: dict[Any, Any]
    owner, remembered = vars(part).get("_memory", (0, {}))
    if owner != id(part):
        remembered = {}
        vars(part)["_memory"] = id(part), remembered
    return remembered


# --- values -----------------------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _list(found: Any, must: str) -> list[Any]:
    """The items of a list, tuple, array or tensor; a text, a dict, a number or None is none of these."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    if isinstance(found, str | bytes) or not isinstance(found, Sequence):
        raise Breach(f"it is {_kind(found)}", must)
    return list(found)


def _one_each(found: Any, count: int, of: str, must: str, question: str = "") -> list[Any]:
    try:
        rows = _list(found, must)
        if len(rows) != count:
            raise Breach(f"there are {len(rows)} for {count} {of}", must)
    except Breach as breach:
        raise Breach(breach.wrong, must, question) from None
    return rows


def _text(found: Any, what: str, must: str) -> str:
    if not isinstance(found, str):
        raise Breach(f"{what} is {_kind(found)}", must)
    return found


def _subset(found: Any, known: Iterable[str], must: str) -> frozenset[str]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise Breach(f"it is {_kind(found)}", must)
    names = frozenset(found)
    if other := names - frozenset(known):
        raise Breach(f"{min(map(repr, other))} is none of them", must)
    return names


def _json(found: Any, must: str) -> Any:
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Breach(f"it cannot be written as JSON: {error}", must) from None
    return found


def _instance(of: str) -> Check:
    """A public class of core, by name: those of higher layers are imported when such a part is called, not before."""

    def check(part: Part, given: Given, found: Any) -> Any:
        if not isinstance(found, getattr(importlib.import_module("leverplus_core"), of)):
            raise Breach(f"it is {_kind(found)}", f"a leverplus_core.{of}")
        return found

    return check


def _cost(of: str) -> Check:
    """A record of costs: counts, and counts by number of demonstrations."""

    def check(part: Part, given: Given, found: Any) -> Any:
        _instance(of)(part, given, found)
        for name, value in vars(found).items():
            counts = [*value, *value.values()] if isinstance(value, Mapping) else np.ravel(value).tolist()
            if not all(isinstance(n, Real) and 0 <= float(n) < math.inf for n in counts):
                raise Breach(f"its {name} is {value!r:.120}", f"a leverplus_core.{of} of counts that are not negative")
        return found

    return check


def _whole(or_none: bool = False) -> Check:
    def check(part: Part, given: Given, found: Any) -> int | None:
        if found is None and or_none:
            return None
        if not isinstance(found, Integral) or int(found) < 0:
            raise Breach(f"it is {_kind(found)}", f"a whole number that is not negative{', or None' * or_none}")
        return int(found)

    return check


# --- small answers that several kinds give ----------------------------------------------------------------------------


def _anything(part: Part, given: Given, found: Any) -> Any:
    return found


def _jsonable(part: Part, given: Given, found: Any) -> Any:
    return _json(found, "something that JSON can hold")


def _named_values(part: Part, given: Given, found: Any) -> dict[str, Any]:
    must = "a dict by names that JSON can hold"
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Breach(f"it is {_kind(found)}", must)
    return dict(_json(found, must))


def _needs(part: Part, given: Given, found: Any) -> frozenset[str]:
    return _subset(found, MEASUREMENTS, f"a set of measurements, of {', '.join(sorted(MEASUREMENTS))}")


def _blocks(part: Part, given: Given, found: Any) -> frozenset[str]:
    return _subset(found, BLOCKS, f"a set of blocks of features, of {', '.join(BLOCKS)}")


def _line(part: Part, given: Given, found: Any) -> str:
    return " ".join(_text(found, "it", "a line of text").split())


def _flag(part: Part, given: Given, found: Any) -> bool:
    if not isinstance(found, bool | np.bool_):
        raise Breach(f"it is {_kind(found)}", "True or False")
    return bool(found)


def _contents(part: Part, given: Given, found: Any) -> tuple[str, ...]:
    must = "a list of names of contents"
    return tuple(_text(name, "one", must) for name in _list(found, must))


# --- datasets ---------------------------------------------------------------------------------------------------------


def _questions(part: Dataset, given: Given, found: Any) -> tuple[Question, ...]:
    rows = _records(found, Question, "questions with different ids, an image and at least one answer")
    if given["split"] == "validation":
        train = {q.id for q in part.questions("train")}
        if both := next((q.id for q in rows if q.id in train), ""):
            raise Breach("it is a train question as well", "questions of the validation split alone", both)
    return rows


def _demonstrations(part: Dataset, given: Given, found: Any) -> tuple[Demonstration, ...]:
    must = "demonstrations with different ids, each of a train question, with an image and an answer"
    rows = _records(found, Demonstration, must)
    train = {q.id for q in part.questions("train")}
    if foreign := next((d.id for d in rows if d.id not in train), ""):
        raise Breach(f"demonstration {foreign} is of no train question", must)
    return rows


def _records(found: Any, of: type, must: str) -> tuple[Any, ...]:
    rows = _list(found, must)
    for i, row in enumerate(rows):
        if not _is_record(row, of):
            raise Breach(f"row {i} is {row!r:.120}", must, str(getattr(row, "id", "")))
    if len({row.id for row in rows}) != len(rows):
        ((twice, _),) = Counter(row.id for row in rows).most_common(1)
        raise Breach("its id comes twice", must, twice)
    return tuple(rows)


def _is_record(row: Any, of: type) -> bool:
    if not (isinstance(row, of) and isinstance(row.id, str) and isinstance(row.text, str)):  # type: ignore[attr-defined]
        return False
    image = row.image  # type: ignore[attr-defined]
    if not (isinstance(image, Image) and isinstance(image.id, str)):
        return False
    if not (isinstance(image.path, str | None) and isinstance(image.caption, str | None)):
        return False
    answers = row.answers if of is Question else (row.answer,)  # type: ignore[attr-defined]
    return isinstance(answers, tuple) and len(answers) > 0 and all(isinstance(answer, str) for answer in answers)


def _size(part: Part, given: Given, found: Any) -> Size | None:
    whole = isinstance(found, Size) and all(isinstance(n, Integral) and int(n) >= 0 for n in astuple(found))
    if found is not None and not whole:
        raise Breach(f"it is {_kind(found)}", "a leverplus_core.Size of whole numbers, or None")
    return found if isinstance(found, Size) else None


# --- models and encoders ----------------------------------------------------------------------------------------------


def _logprobs(part: Part, given: Given, found: Any) -> list[AnswerLogprob]:
    must = "an AnswerLogprob for each prompt: a finite sum of log-probabilities of at least one token"
    rows = _one_each(found, len(given["prompts"]), "prompts", must)
    for i, row in enumerate(rows):
        if not isinstance(row, AnswerLogprob):
            raise Breach(f"that of prompt {i} is {_kind(row)}", must)
        if not isinstance(row.sum, Real) or not isinstance(row.tokens, Integral):
            raise Breach(f"that of prompt {i} is {row!r:.120}", must)
        if not math.isfinite(row.sum) or row.sum > UNIT or row.tokens < 1:
            raise Breach(
                f"that of prompt {i}, answer {given['answers'][i]!r}, is {row.sum} of {row.tokens} tokens", must
            )
    return [AnswerLogprob(float(row.sum), int(row.tokens)) for row in rows]


def _texts(part: Part, given: Given, found: Any) -> list[str]:
    must = "a text for each prompt"
    rows = _one_each(found, len(given["prompts"]), "prompts", must)
    return [_text(row, f"that of prompt {i}", must) for i, row in enumerate(rows)]


def _rows_of(name: str, unit: bool = True) -> Check:
    """Rows of features, one for each item of the argument `name`."""

    def check(part: Part, given: Given, found: Any) -> Floats:
        must = f"a float array (N, D) with a row{' of length 1' if unit else ''} for each of the {name}"
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise Breach(f"it is {found.dtype if isinstance(found, np.ndarray) else _kind(found)}", must)
        count = len(given[name])
        if found.ndim != 2 or len(found) != count or (count and not found.shape[1]):
            raise Breach(f"its shape is {found.shape} for {count} {name}", must)
        rows = np.asarray(found, dtype=np.float32)
        lengths = np.linalg.norm(rows, axis=1)  # not finite where any value of a row is not
        if (wrong := np.flatnonzero(~np.isfinite(lengths))).size:
            raise Breach(f"row {wrong[0]} has values that are not finite", must)
        if unit and (wrong := np.flatnonzero(np.abs(lengths - 1) > UNIT)).size:
            raise Breach(f"row {wrong[0]} is {lengths[wrong[0]]:.4g} long", must)
        if count and (width := memory(part).setdefault(name, rows.shape[1])) != rows.shape[1]:
            raise Breach(f"it has {rows.shape[1]} columns, and earlier rows have {width}", must)
        return rows

    return check


# --- samplers, balancers, rewards -------------------------------------------------------------------------------------


def _pool(part: Sampler, given: Given, found: Any) -> list[int]:
    return _pool_rows(part.k, given["query"].question, given["bank"], found)


def _pools(part: Sampler, given: Given, found: Any) -> list[list[int]]:
    queries = given["queries"]
    pools = _one_each(found, len(queries), "questions", "a list of row numbers for each question")
    return [_pool_rows(part.k, q.question, given["bank"], pool) for q, pool in zip(queries, pools, strict=True)]


def _pool_rows(k: int, question: Question, bank: Bank, found: Any) -> list[int]:
    must = f"{k} distinct row numbers of {len(bank.demonstrations)} demonstrations, none of the question's image"
    try:
        rows = [operator.index(row) for row in _list(found, must)]
    except Breach as breach:
        raise Breach(breach.wrong, must, question.id) from None
    except TypeError as error:
        raise Breach(str(error), must, question.id) from None
    if wrong := _pool_defect(rows, k, question, bank):
        raise Breach(wrong, must, question.id)
    return rows


def _pool_defect(rows: Sequence[int], k: int, question: Question, bank: Bank) -> str:
    if len(rows) != k:
        return f"there are {len(rows)} rows"
    if not 0 <= min(rows) <= max(rows) < len(bank.demonstrations):
        return f"row {next(r for r in rows if not 0 <= r < len(bank.demonstrations))} does not exist"
    if len(set(rows)) != k:
        return f"row {Counter(rows).most_common(1)[0][0]} comes twice"
    for row in rows:
        shown = bank.demonstrations[row]
        if shown.id == question.id or shown.image.id == question.image.id:
            return f"row {row}, demonstration {shown.id}, shows its image"
    return ""


def _selected(part: Balancer, given: Given, found: Any) -> list[Any]:
    group = given["group"]
    must = f"some of the {len(group)} candidates that it was given, each at most once"
    asked = group[0].question_id if group else ""
    try:
        rows = _list(found, must)
        surplus = Counter(rows) - Counter(group)
    except Breach as breach:
        raise Breach(breach.wrong, must, asked) from None
    except TypeError as error:  # something that cannot be counted, and so no candidate
        raise Breach(str(error), must, asked) from None
    if surplus:
        one = next(iter(surplus))
        raise Breach("one comes twice" if one in group else f"one is {one!r:.120}", must, asked)
    return rows


def _rewards(part: Reward, given: Given, found: Any) -> list[float]:
    group = given["group"]
    must, asked = "a finite number for each candidate", group[0].question_id if group else ""
    rows = _one_each(found, len(group), "candidates", must, asked)
    for i, row in enumerate(rows):
        if not isinstance(row, Real):
            raise Breach(f"that of candidate {i} is {_kind(row)}", must, asked)
        if not math.isfinite(row):
            raise Breach(f"that of candidate {i} is {float(row)}", must, asked)
    return [float(row) for row in rows]


# --- selectors and trainers -------------------------------------------------------------------------------------------


def _choices(part: Any, given: Given, found: Any) -> dict[int, list[Ids]]:
    asked, counts = given["eval_set"], list(part.shot_counts(given["shots"]))
    must = f"for each of {counts} shots a tuple of so many distinct ids of demonstrations for each question"
    if not isinstance(found, Mapping) or set(found) != set(counts):
        raise Breach(f"it has {list(found)} shots" if isinstance(found, Mapping) else f"it is {_kind(found)}", must)
    chosen: dict[int, list[Ids]] = {}
    for n in counts:
        chosen[n] = []
        for question, ids in zip(
            asked.questions, _one_each(found[n], len(asked.questions), "questions", must), strict=True
        ):
            try:
                row = tuple(_list(ids, must))
            except Breach as breach:
                raise Breach(breach.wrong, must, question.id) from None
            if wrong := _choice_defect(row, n, question, asked.bank, part.shows_fewer):
                raise Breach(wrong, must, question.id)
            chosen[n].append(row)
    return chosen


def _choice_defect(ids: tuple[Any, ...], n: int, question: Question, bank: Bank, fewer: bool) -> str:
    if len(ids) > n or (len(ids) < n and not fewer):
        return f"there are {len(ids)} of {n} demonstrations"
    for one in ids:
        if not isinstance(one, str) or one not in bank.rows_of_id:
            return f"there is no demonstration {one!r:.60}"
        if one == question.id or bank.demonstrations[bank.rows_of_id[one]].image.id == question.image.id:
            return f"demonstration {one} shows its image"
    return f"demonstration {Counter(ids).most_common(1)[0][0]} comes twice" if len(set(ids)) != len(ids) else ""


def _shot_counts(part: Part, given: Given, found: Any) -> list[int]:
    must = "a list of different numbers of demonstrations"
    rows = _list(found, must)
    if not all(isinstance(n, Integral) and int(n) >= 0 for n in rows) or len(set(rows)) != len(rows):
        raise Breach("it is not that", must)
    return [int(n) for n in rows]


def _fitted(part: Part, given: Given, found: Any) -> Any:
    must = "a leverplus_core.FitResult, and a policy with finite weights"
    _instance("FitResult")(part, given, found)
    for name, weights in given["policy"].named_parameters():
        if not weights.isfinite().all():
            raise Breach(f"the policy's {name} is not finite", must)
    epochs = (found.best_epoch, found.chosen_epoch, found.tied)
    if not all(isinstance(n, Integral) and int(n) >= 0 for n in epochs):
        raise Breach(f"its epochs are {epochs}", must)
    for row in _list(found.curve, must):
        curve_row(*row) if isinstance(row, tuple) and len(row) == 2 else curve_row(row, {})
    return found


def curve_row(epoch: Any, metrics: Any) -> None:
    """Raise Breach for what is no row of a training curve."""
    must = "whole epochs and finite metrics by name"
    if not isinstance(epoch, Integral) or not isinstance(metrics, Mapping):
        raise Breach(f"a row of the curve has the epoch {epoch!r:.60}", must)
    for name, value in metrics.items():
        if not isinstance(name, str) or not isinstance(value, Real) or not math.isfinite(value):
            raise Breach(f"epoch {epoch} has {name!r:.60} of {value!r:.60}", must)


def scores_defect(scores: Any, chosen: Any) -> str:
    """What is wrong with a network's scores of the next choice, (B, C, K) like the mask `chosen`; '' for nothing."""
    if not hasattr(scores, "isnan") or scores.shape != chosen.shape:
        return f"its scores have the shape {tuple(getattr(scores, 'shape', ()))} for {tuple(chosen.shape)}"
    if scores.isnan().any() or (scores == math.inf).any():
        return "its scores are not finite"
    if scores[chosen].isfinite().any():
        return "it may choose a demonstration twice: the scores of those that are chosen must be -inf"
    return ""


# --- importers --------------------------------------------------------------------------------------------------------


def _table(part: Part, given: Given, found: Any) -> Any:
    """A table of results, or a log; what a file holds of single questions is checked as it is read."""
    if isinstance(part, ResultsImporter):
        right, must = isinstance(found, PublishedTable), "a leverplus_core.PublishedTable"
    elif isinstance(part, SamplesImporter):
        right, must = isinstance(found, SampleLog), "a leverplus_core.SampleLog"
    else:
        right, must = isinstance(found, Iterable), "what the file holds, a question at a time"
    if not right:
        raise Breach(f"it is {_kind(found)}", must)
    return found


_PART: dict[str, Check] = {"identity": _named_values, "check_machine": _anything}
CHECKS: Mapping[str, Mapping[str, Check]] = {
    "dataset": {
        **_PART, "questions": _questions, "demonstrations": _demonstrations, "note": _line, "expected_size": _size,
    },
    "model": {
        **_PART, "logprob": _logprobs, "generate": _texts, "supports_logprob": _flag,
        "most_beams": _whole(or_none=True), "last_hidden_state": _rows_of("prompts", unit=False),
        "embed_images": _rows_of("images"), "embed_texts": _rows_of("texts"),
        "image_tokens": _whole(or_none=True), "cached_image_bytes": _whole(), "use_cache_folder": _anything,
        "expect": _anything, "check_image": _anything,
    },
    "encoder": {
        **_PART, "images": _rows_of("images"), "texts": _rows_of("texts"), "check_model": _anything,
        "check_image": _anything,
    },
    "sampler": {**_PART, "pool": _pool, "pools": _pools, "blocks": _blocks},
    "selector": {
        **_PART, "select": _choices, "blocks": _blocks, "shot_counts": _shot_counts,
        "cost": _cost("SelectionCost"), "policy": _instance("Policy"),
    },
    "balancer": {**_PART, "select": _selected, "needs": _needs, "shortfall": _line},
    "reward": {**_PART, "compute": _rewards, "needs": _needs},
    "trainer": {**_PART, "fit": _fitted},
    "stage": {
        **_PART, "enabled": _flag, "reads": _contents, "depends": _jsonable, "run": _named_values,
        "lacks": _line, "suffices": _flag, "replay": _anything, "cost": _cost("StageCost"),
    },
    "importer": {**_PART, "recognizes": _flag, "read": _table},
    "exporter": {**_PART, "write": _anything},
}  # fmt: skip
"""Kind -> each method that core calls, with the check of its result."""
