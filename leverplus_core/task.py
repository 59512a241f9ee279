"""What is asked of the VLM and how its answers are judged: the metric, the answer that counts, and the template.

A recipe names its task (`task: vqa`); nothing else in core knows what an answer is. A second task, captioning say, is
one more entry of TASKS: CIDEr as the score, the reference captions as answers, a template without a question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from leverplus_core import vqa

TaskName = Literal["vqa"]


@dataclass(frozen=True)
class Task:
    """`metric` names the score in tables; `prompt` holds what the task changes of `PromptSettings`' defaults.

    `score` (prediction, answers) and `nearness` (prediction, answers) are in [0, 1]; `reference` (answers) is the true
    answer whose log-probability is measured.
    """

    metric: str
    score: Callable[[str, Sequence[str]], float]
    reference: Callable[[Sequence[str]], str]
    nearness: Callable[[str, Sequence[str]], float]
    prompt: Mapping[str, object] = field(default_factory=dict)


TASKS: Mapping[TaskName, Task] = {
    "vqa": Task("VQA accuracy", vqa.accuracy, vqa.most_frequent, vqa.nearness),
}
assert set(TASKS) == set(get_args(TaskName))
