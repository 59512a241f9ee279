"""A third party's part that breaks its contract is one line that names it, the question and what it returned."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leverplus_core
from leverplus_core import Catalog, DataError, PluginError
from leverplus_core.plugins import contracts
from leverplus_core.plugins.calls import by_signal, third_party
from leverplus_core.plugins.checks import CHECKS
from leverplus_core.plugins.manager import KINDS
from leverplus_core.progress import Silent
from leverplus_core.testing import tiny_bank, tiny_groups

Install = Callable[..., str]
GROUP = tiny_groups()[2][:3]
NAMED = "reward 'bad' of acme-bad 1.0: compute()"

PART = """
    import sys
    import numpy as np
    from leverplus_core import *
    from leverplus_core import hookimpl

    class Bad(BASE):
        \"\"\"Breaks its contract.\"\"\"

        def METHOD:
            BODY

    @hookimpl
    def leverplus_KINDs():
        return {"bad": __name__ + ":Bad"}
"""


@pytest.fixture
def make(install: Install) -> Callable[..., Any]:
    """`make(kind, base, method, body)`: a part of an installed distribution, built."""

    def build(kind: str, base: str, method: str, body: str, **settings: object) -> Any:
        code = PART.replace("BASE", base).replace("METHOD", method).replace("KIND", kind).replace("BODY", body)
        install("acme-bad", code)
        return Catalog.load(disabled="").build(kind, "bad", settings)

    return build


Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [1.0, 2.0]", "returned [1.0, 2.0]: there are 2 for 3 candidates. It must return a finite number for"),
        ("return [1.0, float('nan'), 2.0]", "returned [1.0, nan, 2.0]: that of candidate 1 is nan."),
        ("return np.array([1.0, np.inf, 0.0])", "that of candidate 1 is inf."),
        ("return None", "returned None: it is None."),
        ("return 'abc'", "returned 'abc': it is of type str."),
        ("return ['1', '2', '3']", "that of candidate 0 is of type str."),
        ("return [None] * 3", "that of candidate 0 is None."),
        ("return {'a': 1}", "returned {'a': 1}: it is of type dict."),
    ],
)
def test_a_reward_that_returns_no_number_for_each_candidate_is_named_with_the_question(
    make: Make, body: str, says: str
) -> None:
    part = make("reward", "Reward", "compute(self, group)", body)
    with pytest.raises(PluginError) as error:
        part.compute(GROUP)
    assert str(error.value).startswith(f"{NAMED} of question q0 returned ") and says in str(error.value)


def test_what_a_part_raises_is_one_line_with_its_place_and_the_trace_behind_it(make: Make) -> None:
    for body, says in (
        ("1 / 0", "raised ZeroDivisionError: division by zero (acme_bad.py:11)."),
        ("sys.exit(3)", "raised SystemExit: 3 (acme_bad.py:11)."),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt (acme_bad.py:11)."),
        ("raise BaseException('two\\nlines')", "raised BaseException: two lines (acme_bad.py:11)."),
    ):
        part = make("reward", "Reward", "compute(self, group)", body)
        with pytest.raises(PluginError) as error:
            part.compute(GROUP)
        assert str(error.value) == f"{NAMED} of question q0 {says} LEVERPLUS_TRACE=1 shows the trace."
        assert error.value.__cause__ is not None
        del sys.modules["acme_bad"]


def test_an_error_that_cannot_even_be_shown_is_one_line(make: Make) -> None:
    body = "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})"
    with pytest.raises(PluginError, match=r"of question q0 raised Odd \(acme_bad"):
        make("reward", "Reward", "compute(self, group)", body).compute(GROUP)
    del sys.modules["acme_bad"]
    body = "return type('Odd', (), {'__repr__': lambda self: 1 / 0})()"
    with pytest.raises(PluginError, match=r"of question q0 returned <Odd .*: it is of type Odd\."):
        make("reward", "Reward", "compute(self, group)", body).compute(GROUP)


def test_a_mistake_that_a_part_explains_itself_keeps_its_words(make: Make) -> None:
    part = make("reward", "Reward", "compute(self, group)", "raise DataError('no probabilities.', 'Measure again.')")
    with pytest.raises(DataError, match=r"^no probabilities\. Measure again\.$"):
        part.compute(GROUP)


def test_a_sound_result_comes_out_in_the_types_of_the_contract(make: Make) -> None:
    part = make("reward", "Reward", "compute(self, group)", "return np.arange(3, dtype=np.float32)")
    assert part.compute(GROUP) == [0.0, 1.0, 2.0] and {type(v) for v in part.compute(GROUP)} == {float}
    assert part.model_copy().compute(GROUP) == [0.0, 1.0, 2.0]
    assert part == type(part).model_validate({})


def test_the_lists_that_a_part_is_given_are_its_own_to_sort_and_empty(make: Make) -> None:
    given = list(GROUP)
    with pytest.raises(PluginError, match="there are 0 for 3 candidates"):
        make("reward", "Reward", "compute(self, group)", "group.clear(); return []").compute(given)
    assert given == list(GROUP)


def test_the_user_s_interruption_is_not_taken_for_a_failure(make: Make) -> None:
    part = make("reward", "Reward", "compute(self, group)", "import signal; signal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        part.compute(GROUP)


def test_a_handler_of_ours_that_raises_for_a_signal_is_the_user() -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt) as error, third_party("a plugin"):
            signal.raise_signal(signal.SIGTERM)
        assert by_signal(error.value)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [3, 4, 5, 6]", "there are 4 rows"),
        ("return [3, 4, 5, 6, 3]", "row 3 comes twice"),
        ("return [3, 4, 5, 6, 0]", "row 0, demonstration q0, shows its image"),
        ("return [3, 4, 5, 6, 1]", "row 1, demonstration q1, shows its image"),
        ("return [3, 4, 5, 6, 24]", "row 24 does not exist"),
        ("return [3, 4, 5, 6, -1]", "row -1 does not exist"),
        ("return ['q3', 'q4', 'q5', 'q6', 'q7']", "'str' object cannot be interpreted as an integer"),
        ("return np.array([3.0, 4.0, 5.0, 6.0, 7.0])", "'float' object cannot be interpreted as an integer"),
        ("return range(99)", "there are 99 rows"),
    ],
)
def test_a_pool_that_is_none_names_the_sampler_and_the_question(make: Make, body: str, says: str) -> None:
    part = make("sampler", "Sampler", "pool(self, query, bank, rng)", body, k=5)
    query, bank = tiny_bank()
    with pytest.raises(PluginError) as error:
        part.pool(query, bank, np.random.default_rng(0))
    assert str(error.value).startswith("sampler 'bad' of acme-bad 1.0: pool() of question q0 returned ")
    assert f": {says}. It must return 5 distinct row numbers of 24 demonstrations" in str(error.value)


def test_a_balancer_may_select_only_what_it_was_given(make: Make) -> None:
    part = make("balancer", "Balancer", "select(self, group, rng)", "return [*group, group[0]]")
    with pytest.raises(PluginError, match=r"balancer 'bad' .* of question q0 returned .*: one comes twice\."):
        part.select(GROUP, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "returned None: it is None."),
        ("return []", "there are 0 for 2 prompts."),
        ("return [AnswerLogprob(float('nan'), 1)] * 2", "that of prompt 0, answer 'a', is nan of 1 tokens."),
        (
            "return [AnswerLogprob(-1.0, 1), AnswerLogprob(-1.0, 0)]",
            "that of prompt 1, answer 'b', is -1.0 of 0 tokens",
        ),
        ("return [-1.0, -2.0]", "that of prompt 0 is of type float."),
    ],
)
def test_a_model_that_answers_less_than_it_is_asked_is_named(make: Make, body: str, says: str) -> None:
    generate = "generate(self, prompts, decoding):\n            return ['a']\n\n"
    method = f"{generate}        def logprob(self, prompts, answers, end_mark=False)"
    part = make("model", "Model", method, body)
    prompts: Any = ["one", "two"]
    with pytest.raises(PluginError) as error:
        part.logprob(prompts, ["a", "b"])
    assert str(error.value).startswith("model 'bad' of acme-bad 1.0: logprob() returned") and says in str(error.value)
    with pytest.raises(PluginError, match=r"generate\(\) returned \['a'\]: there are 1 for 2 prompts"):
        part.generate(prompts, None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return np.ones((3, 4), np.float32)", "its shape is (3, 4) for 2 texts"),
        ("return np.ones(4, np.float32)", "its shape is (4,) for 2 texts"),
        ("return np.full((2, 4), np.nan)", "row 0 has values that are not finite"),
        ("return np.ones((2, 4))", "row 0 is 2 long"),
        ("return np.ones((2, 1), int)", "it is int64"),
        ("return [[1.0], [1.0]]", "it is of type list"),
        ("return np.eye(2, len(texts[0]) + 1)", "it has 4 columns, and earlier rows have 3"),
    ],
)
def test_an_encoder_s_rows_are_finite_unit_rows_of_one_width(make: Make, body: str, says: str) -> None:
    images = "images(self, images, model=None):\n            return None\n\n"
    part = make("encoder", "Encoder", f"{images}        def texts(self, texts, model=None)", body)
    with pytest.raises(PluginError) as error:
        for texts in (["ab", "cd"], ["abc", "def"]):
            part.texts(texts)
    assert str(error.value).startswith("encoder 'bad' of acme-bad 1.0: texts() returned ") and says in str(error.value)


def test_a_dataset_is_asked_once_and_its_rows_are_held_to_the_contract(make: Make) -> None:
    count = "self.__dict__['n'] = self.__dict__.get('n', 0) + 1"
    body = f"{count}; return [Question(split, 'what?', Image('i'), ('a',))]"
    part = make("dataset", "Dataset", "questions(self, split)", body)
    for _ in range(3):
        assert [q.id for q in part.questions("validation")] == ["validation"]
        assert [d.id for d in part.demonstrations()] == ["train"]
    assert part.__dict__["n"] == 2 and part.model_copy().questions("train") == part.questions("train")
    for text, says in (
        (
            "return [Question('q', 'what?', Image('i'), ('a',))]",
            "of question q returned .*: it is a train question as well",
        ),
        ("return [Question('q', 'what?', Image('i'), ())]", "of question q returned .*: row 0 is Question"),
        ("return [Question('q', 'what?', Image('i'), ('a',))] * 2", "of question q returned .*: its id comes twice"),
        ("return [Question(7, 'what?', Image('i'), ('a',))]", "of question 7 returned .*: row 0 is Question"),
        ("return None", r"questions\(\) returned None: it is None"),
    ):
        del sys.modules["acme_bad"]
        with pytest.raises(PluginError, match=says):
            make("dataset", "Dataset", "questions(self, split)", text).questions("validation")


def test_a_part_that_prints_leaves_standard_output_alone(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("reward", "Reward", "compute(self, group)", "print('hello'); return [0.0] * 3").compute(GROUP)
    assert capsys.readouterr() == ("", "hello\n")


def test_a_validator_that_raises_is_one_line(install: Install) -> None:
    code = PART.replace("BASE", "Reward").replace("METHOD", "compute(self, group)").replace("KIND", "reward")
    code = code.replace("BODY", "return []").replace(
        "\n\n        def compute",
        "\n        def model_post_init(self, context):\n            sys.exit(1)\n\n        def compute",
    )
    install("acme-bad", code)
    with pytest.raises(PluginError, match=r"^reward 'bad' of acme-bad 1\.0 raised SystemExit: 1 \(acme_bad\.py:"):
        Catalog.load(disabled="").build("reward", "bad", {})


def test_our_own_parts_are_not_guarded_since_what_they_raise_is_a_bug(catalog: Catalog) -> None:
    part = catalog.build("reward", "separated", {})
    assert type(part) is catalog.part_class("reward", "separated")


def test_a_file_of_parts_is_guarded_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "my_guarded_parts.py"
    code = PART.replace("BASE", "Reward").replace("METHOD", "compute(self, group)").replace("KIND", "reward")
    file.write_text(code.replace("BODY", "return None").replace("\n    ", "\n"), encoding="utf-8")
    with pytest.raises(PluginError) as error:
        Catalog.load([file], disabled="").build("reward", "bad", {}).compute(GROUP)
    assert str(error.value).startswith(f"reward 'bad' of {file}: compute() of question q0 returned None")
    del sys.modules[file.stem]


IMPORTERS = ("DataImporter", "ResultsImporter", "SamplesImporter")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("return [1]", r"read\(\) returned \[1\]: it is of type list.*SampleLog"),
        ("return SampleLog('acme', '', 't', 'm', 0, [1])", r"read\(\) returned 1: one is of type int.*LoggedSample"),
        ("return SampleLog('acme', '', 't', 'm', 0, (1 / 0 for _ in 'a'))", r"read\(\) raised ZeroDivisionError"),
    ],
)
def test_what_a_log_holds_is_checked_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, wrong: str
) -> None:
    file = tmp_path / "my_logs.py"
    file.write_text(
        "from leverplus_core import SampleLog, SamplesImporter, hookimpl\n"
        "class Acme(SamplesImporter):\n"
        "    def recognizes(self, source): return True\n"
        f"    def read(self, source, progress): {body}\n"
        "@hookimpl\n"
        "def leverplus_importers(): return {'acme-log': __name__ + ':Acme'}\n",
        encoding="utf-8",
    )
    monkeypatch.setitem(sys.modules, file.stem, None)  # so that it is forgotten in the end
    del sys.modules[file.stem]
    part = Catalog.load([file], disabled="").build("importer", "acme-log", {})
    with pytest.raises(PluginError, match=f"^importer 'acme-log' of .*{wrong}"):
        list(part.read(file, Silent()).samples)


def test_every_method_of_every_contract_is_guarded() -> None:
    """A method that a contract gains must say what it returns."""
    mixins: dict[str, list[type]] = {"model": [c for n, c in vars(contracts).items() if n.startswith("Supports")]}
    helpers = {"reward": {"require"}}
    below = {"selector": ("BaselineSelector", "TrainableSelector"), "importer": IMPORTERS}
    for kind, public in KINDS.items():
        found = [getattr(leverplus_core, public), *mixins.get(kind, [])]
        found += [getattr(leverplus_core, name) for name in below.get(kind, ())]
        methods = {
            name
            for of in found
            for base in of.__mro__
            if base.__module__.startswith("leverplus_core")
            for name, value in vars(base).items()
            if inspect.isfunction(value) and not name.startswith(("_", "model_"))
        }
        assert methods - helpers.get(kind, set()) == set(CHECKS[kind]), kind
