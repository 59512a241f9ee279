"""Third-party parts as they are built: every call is held to its contract, so that no stage meets what breaks it.

The class that `guarded` returns is the part's own with the methods of its contract around: what one raises, and a
result that is not what the contract says, is a PluginError that names the part, its distribution, the question and the
result. A result is thus checked where it appears, whatever stage or command asks.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from leverplus_core.errors import PluginError
from leverplus_core.plugins.calls import brief, third_party
from leverplus_core.plugins.checks import CHECKS, Breach, Check, class_defect, curve_row, memory, scores_defect
from leverplus_core.plugins.contracts import Part
from leverplus_core.records import EmbeddingData, LoggedSample, QuestionData, SampleLog

ROWS = ("questions", "demonstrations")
"""What a dataset is asked once: its contract says that it gives the same every time."""
NETWORK = ("encode", "scores", "next_state", "stop_logit")
"""What a network computes, and below what core computes with it."""
USES = ("beam_search", "sample", "adaptive", "step_log_probs", "log_probs", "fit_standardizer")


def guarded(part: type[Part], kind: str, title: str) -> type[Part]:
    """`part`, a class of the contract of its kind, with its methods guarded; `title` is how messages name it.

    Raises PluginError for a class whose constants are not what its kind has.
    """
    if wrong := class_defect(kind, part):
        raise PluginError(f"{title}: {wrong}.")
    # A setting may have the name of a method that has a default.
    names = [n for n in CHECKS[kind] if callable(getattr(part, n, None)) and n not in part.model_fields]
    methods = {name: _method(part, name, CHECKS[kind][name], title) for name in names}
    with third_party(title):
        made: type[Part] = _around(part, methods)
    return made


def _around(inner: Any, methods: Mapping[str, Any]) -> Any:
    """A class like `inner`, whose methods of these names call those of `inner`."""
    same = {"__module__": inner.__module__, "__qualname__": inner.__qualname__, "__doc__": inner.__doc__}
    return type(inner)(inner.__name__, (inner,), {**same, **methods})


def _method(part: type[Part], name: str, check: Check, title: str) -> Any:
    # The contract's signature: the part's own may have other names.
    declared = next(vars(base)[name] for base in reversed(part.__mro__) if name in vars(base))
    signature = inspect.signature(declared)

    def call(self: Part, *args: Any, **kwargs: Any) -> Any:
        own = inspect.getattr_static(part, name).__get__(self, part)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:  # a call within the part, with arguments of its own
            return own(*args, **kwargs)
        given = bound.arguments
        kept = memory(self) if name in ROWS else {}
        asked = given.get("split", "") if name in ROWS else ""
        if (name, asked) in kept:
            return kept[name, asked]
        with third_party(f"{title}: {name}(){_asking(given)}"):
            if name == "fit":
                given["run"] = _checked_epochs(given["run"], f"{title}: {name}()")
            # Lists are the part's own, to sort and to empty: results are held against what it was given.
            found = own(*map(_copied, bound.args[1:]), **{key: _copied(one) for key, one in bound.kwargs.items()})
            try:
                found = kept[name, asked] = check(self, given, found)
            except Breach as breach:
                raise _breach(f"{title}: {name}()", breach, found) from None
        if name == "policy":
            _guard_network(found, title)
        if isinstance(found, SampleLog):
            return replace(found, samples=_items(found.samples, f"{title}: {name}()", (LoggedSample,)))
        if name == "read" and isinstance(found, Iterable):
            return _items(found, f"{title}: {name}()", (QuestionData, EmbeddingData))
        return found

    call.__name__ = name
    return call


def _copied(given: Any) -> Any:
    return given.copy() if type(given) in (list, dict) else given


def _breach(call: str, breach: Breach, found: object) -> PluginError:
    at = f" of question {breach.question}" if breach.question else ""
    return PluginError(f"{call}{at} returned {brief(found)}: {breach.wrong}.", f"It must return {breach.must}.")


def _asking(given: Mapping[str, Any]) -> str:
    """' of question q1' where the arguments say whose call it is."""
    if "query" in given:
        return f" of question {given['query'].question.id}"
    if given.get("group"):
        return f" of question {given['group'][0].question_id}"
    return ""


def _items(found: Iterable[Any], call: str, types: tuple[type, ...]) -> Iterator[Any]:
    with third_party(call):
        rows = iter(found)
    while True:
        with third_party(call):
            one = next(rows, rows)
            if one is rows:
                return
            if not isinstance(one, types):
                must = f"{' or '.join(kind.__name__ for kind in types)}, one after the other"
                raise _breach(call, Breach(f"one is of type {type(one).__name__}", must), one)
        yield one


def _checked_epochs(run: Any, call: str) -> Any:
    """The run of a fit, whose trainer may tell only what a curve can hold."""
    tell = run.on_epoch
    if tell is None:
        return run

    def on_epoch(epoch: Any, metrics: Any) -> None:
        try:
            curve_row(epoch, metrics)
        except Breach as breach:
            raise PluginError(f"{call} told of an epoch: {breach.wrong}.", f"It must tell {breach.must}.") from None
        tell(epoch, metrics)

    return replace(run, on_epoch=on_epoch)


def _guard_network(policy: Any, title: str) -> None:
    """Let what a selector's network raises, and scores that are none, name the selector."""
    made = type(policy)
    methods = {name: _network_method(made, name, title) for name in (*NETWORK, *USES) if hasattr(made, name)}
    policy.__class__ = _around(made, methods)


def _network_method(made: type, name: str, title: str) -> Any:
    encoded: type = importlib.import_module("leverplus_core").Encoded

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with third_party(f"{title}: its network's {name}()"):
            found = getattr(made, name)(self, *args, **kwargs)
            if name == "encode" and not isinstance(found, encoded):
                raise PluginError(f"{title}: its network's encode() returned {brief(found)}, no Encoded.")
            if name == "scores" and (wrong := scores_defect(found, args[2] if len(args) > 2 else kwargs["chosen"])):
                raise PluginError(f"{title}: its network's scores(): {wrong}.")
        return found

    call.__name__ = name
    return call
