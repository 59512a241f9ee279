"""Measurements of demonstration sequences: the generated answer and the log-probability of the true one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from leverplus_core.errors import DataError, PromptError
from leverplus_core.metrics import TASKS, Reference, Task
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import AnswerLogprob, Candidate, Decoding, Demonstration, Ids, Prompt, Question
from leverplus_core.scoring.cache import CachedModel
from leverplus_core.scoring.prompt import PromptBuilder, post_process


@dataclass(frozen=True)
class Scorer:
    """Everything that turns (question, demonstration ids) into measurements.

    `reference` says which true answers' probability is measured, `end_mark` whether the token that ends an answer
    belongs to it. With `probabilities` off, candidates are measured by their answer alone.
    """

    model: CachedModel
    demonstrations: Mapping[str, Demonstration]
    prompt: PromptSettings
    decoding: Decoding
    correct_threshold: float = 0.5
    task: Task = TASKS["vqa"]
    reference: Reference = "most_frequent"
    end_mark: bool = False
    probabilities: bool = True

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "log-probabilities") -> list[AnswerLogprob]:
        """Log-probability of each question's true answer, or answers (`reference`), after its demonstrations.

        Of several, the log of sum_a w_a P(a) / sum_a w_a with the task's weights w_a, P(a) the geometric mean of the
        probabilities of a's tokens. Each answer is one prompt to the model.
        """
        prompts = [self._prompt(question, ids) for question, ids in rows]
        of_question = {id(question): question for question, _ in rows}  # a search asks each some hundred times
        references = {key: self._references(question) for key, question in of_question.items()}
        weights = [references[id(question)] for question, _ in rows]
        asked = [(i, answer) for i, of in enumerate(weights) for answer in of]
        with _naming(rows, prompts):
            found = self.model.logprob([prompts[i] for i, _ in asked], [a for _, a in asked], label, self.end_mark)
        of_row = iter(found)
        return [_weighted(list(islice(of_row, len(of))), list(of.values())) for of in weights]

    def prompts(self, question: Question) -> int:
        """Prompts to the model that a candidate of `question` costs: its answer, and its true answers' probability."""
        return 1 + self.reference_prompts(question)

    def reference_prompts(self, question: Question) -> int:
        """Those of the probability alone; 0 where candidates are measured without."""
        return len(self._references(question)) if self.probabilities else 0

    def _references(self, question: Question) -> Mapping[str, float]:
        return self.task.references[self.reference](question.answers)

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "answers") -> list[tuple[str, str, float]]:
        """(raw text, post-processed answer, accuracy) of each row."""
        prompts = [self._prompt(question, ids) for question, ids in rows]
        with _naming(rows, prompts):
            texts = self.model.generate(prompts, self.decoding, label)
        cut = [post_process(text, self.prompt) for text in texts]
        return [(t, p, self.task.score(p, q.answers)) for t, p, (q, _) in zip(texts, cut, rows, strict=True)]

    def copied(self, prediction: str, ids: Ids) -> bool:
        """Whether the answer `prediction`, normalized, is that of one of the demonstrations `ids` as they are shown."""
        normalize = self.task.normalize
        return normalize(prediction) in {normalize(self.demonstrations[i].answer) for i in ids}

    def candidates(self, rows: Sequence[tuple[Question, Ids, str]]) -> list[Candidate]:
        """Measure (question, demonstration ids, source): the generated answer and the true answer's probability.

        Without `probabilities` the log-probability and the InfoScore are None.
        """
        pairs = [(question, ids) for question, ids, _ in rows]
        measured: Sequence[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
        if self.probabilities:
            logprobs = self.logprobs(pairs, "candidates: log-probabilities")
            alone = self.logprobs([(q, ()) for q, _ in pairs], "candidates: no demonstrations")
            measured = [
                (found.mean, math.exp(found.mean) - math.exp(bare.mean))
                for found, bare in zip(logprobs, alone, strict=True)
            ]
        answers = self.answers(pairs, "candidates: answers")
        return [
            Candidate(
                question_id=question.id,
                demonstrations=ids,
                source=source,
                raw_text=raw,
                prediction=prediction,
                accuracy=accuracy,
                correct=accuracy >= self.correct_threshold,
                logprob=logprob,
                info_score=info_score,
                text_similarity=self.task.text_similarity(prediction, question.answers),
            )
            for (question, ids, source), (logprob, info_score), (raw, prediction, accuracy) in zip(
                rows, measured, answers, strict=True
            )
        ]

    def _prompt(self, question: Question, ids: Ids) -> Prompt:
        shown = [self.demonstrations[i] for i in ids]
        for d in shown:
            if d.id == question.id or d.image.id == question.image.id:
                raise DataError(
                    f"leak: question {question.id} would be shown demonstration {d.id}, which has its image "
                    f"{question.image.id}.",
                    "Draw pools without the question and its image.",
                )
        return self._builder.build(shown, question)

    @cached_property
    def _builder(self) -> PromptBuilder:
        return PromptBuilder(self.prompt)


@contextmanager
def _naming(rows: Sequence[tuple[Question, Ids]], prompts: Sequence[Prompt]) -> Iterator[None]:
    """Name the question of a prompt that the model cannot read."""
    try:
        yield
    except PromptError as e:
        question, ids = rows[prompts.index(e.prompt)]
        shown = f" with {len(ids)} demonstration{'s' * (len(ids) > 1)}" if ids else ""
        raise DataError(f"question {question.id}{shown}: {e.what}", e.hint) from e


def _weighted(found: Sequence[AnswerLogprob], weights: Sequence[float]) -> AnswerLogprob:
    """Of one answer its own; of several the log of the weighted mean of their geometric-mean probabilities."""
    if len(found) == 1:
        return found[0]
    highest = max(logprob.mean for logprob in found)
    mean = sum(w * math.exp(logprob.mean - highest) for w, logprob in zip(weights, found, strict=True)) / sum(weights)
    return AnswerLogprob(highest + math.log(mean), 1)
