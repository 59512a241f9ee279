"""Measurements of demonstration sequences: the generated answer and the log-probability of the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leverplus_core.errors import DataError
from leverplus_core.metrics import TASKS, Task
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import AnswerLogprob, Candidate, Decoding, Demonstration, Ids, Prompt, Question
from leverplus_core.scoring.cache import CachedModel
from leverplus_core.scoring.prompt import build_prompt, post_process


@dataclass(frozen=True)
class Scorer:
    """Everything that turns (question, demonstration ids) into measurements."""

    model: CachedModel
    demonstrations: Mapping[str, Demonstration]
    prompt: PromptSettings
    decoding: Decoding
    correct_threshold: float = 0.5
    task: Task = TASKS["vqa"]

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "log-probabilities") -> list[AnswerLogprob]:
        """Log-probability of each question's reference answer (VQA: the most frequent) after its demonstrations."""
        prompts = [self._prompt(question, ids) for question, ids in rows]
        return self.model.logprob(prompts, [self.task.reference(q.answers) for q, _ in rows], label)

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "answers") -> list[tuple[str, str, float]]:
        """(raw text, post-processed answer, accuracy) of each row."""
        texts = self.model.generate([self._prompt(q, ids) for q, ids in rows], self.decoding, label)
        cut = [post_process(text, self.prompt) for text in texts]
        return [(t, p, self.task.score(p, q.answers)) for t, p, (q, _) in zip(texts, cut, rows, strict=True)]

    def copied(self, prediction: str, ids: Ids) -> bool:
        """Whether the answer `prediction`, normalized, is that of one of the demonstrations `ids` as they are shown."""
        normalize = self.task.normalize
        return normalize(prediction) in {normalize(self.demonstrations[i].answer) for i in ids}

    def candidates(self, rows: Sequence[tuple[Question, Ids, str]]) -> list[Candidate]:
        """Measure (question, demonstration ids, source): the generated answer and the true answer's probability."""
        pairs = [(question, ids) for question, ids, _ in rows]
        logprobs = self.logprobs(pairs, "candidates: log-probabilities")
        bare = dict(
            zip(
                (q.id for q, _ in pairs),
                self.logprobs([(q, ()) for q, _ in pairs], "candidates: no demonstrations"),
                strict=True,
            )
        )
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
                logprob=logprob.mean,
                info_score=math.exp(logprob.mean) - math.exp(bare[question.id].mean),
                text_similarity=self.task.text_similarity(prediction, question.answers),
            )
            for (question, ids, source), logprob, (raw, prediction, accuracy) in zip(
                rows, logprobs, answers, strict=True
            )
        ]

    def _prompt(self, question: Question, ids: Ids) -> Prompt:
        shown = [self.demonstrations[i] for i in ids]
        if leak := next((d for d in shown if d.id == question.id or d.image.id == question.image.id), None):
            raise DataError(
                f"leak: question {question.id} would be shown demonstration {leak.id}, which has its image "
                f"{question.image.id}.",
                "Draw pools without the question and its image.",
            )
        return build_prompt(shown, question, self.prompt)
