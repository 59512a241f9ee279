"""What demonstration sequences do to the answer: InfoScore beam search and measured candidates, for any VLM.

InfoScore (Lever-LM, Yang et al., NeurIPS 2024) of adding demonstration c to sequence S for question x with true
answer y is P(y | c, S, x) - P(y | S, x), P the geometric mean of the answer tokens' probabilities, or the same
difference of log P (`form: log`). Higher is better. All questions go down a level together, so that the model sees
full batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from leverplus_core.errors import DataError
from leverplus_core.measurements import Asker
from leverplus_core.prompt import PromptSettings, build_prompt, post_process
from leverplus_core.records import AnswerLogprob, Candidate, Decoding, Demonstration, Prompt, Question
from leverplus_core.records import Sequence as Kept
from leverplus_core.task import TASKS, Task

Ids = tuple[str, ...]
Form = Literal["probability", "log"]


class BeamSettings(BaseModel):
    """The InfoScore beam search over a question's pool.

    `width` limits the extensions of a sequence to the demonstrations that were best alone (None: the whole pool);
    it trades thoroughness for `width / k` of the prompts after the first shot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beam: int = Field(5, ge=1)
    shots: int = Field(2, ge=1)
    width: int | None = Field(None, ge=1)
    form: Form = "probability"


@dataclass(frozen=True)
class Scorer:
    """Everything that turns (question, demonstration ids) into measurements."""

    asker: Asker
    demonstrations: Mapping[str, Demonstration]
    prompt: PromptSettings
    decoding: Decoding
    correct_at: float = 0.5
    task: Task = TASKS["vqa"]

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "log-probabilities") -> list[AnswerLogprob]:
        """Log-probability of each question's reference answer (VQA: the most frequent) after its demonstrations."""
        prompts = [self._prompt(question, ids) for question, ids in rows]
        return self.asker.logprob(prompts, [self.task.reference(q.answers) for q, _ in rows], label)

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "answers") -> list[tuple[str, str, float]]:
        """(raw text, post-processed answer, accuracy) of each row."""
        texts = self.asker.generate([self._prompt(q, ids) for q, ids in rows], self.decoding, label)
        cut = [post_process(text, self.prompt) for text in texts]
        return [(t, p, self.task.score(p, q.answers)) for t, p, (q, _) in zip(texts, cut, rows, strict=True)]

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
                correct=accuracy >= self.correct_at,
                logprob=logprob.mean,
                info_score=math.exp(logprob.mean) - math.exp(bare[question.id].mean),
                nearness=self.task.nearness(prediction, question.answers),
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


def beam_search(
    scorer: Scorer, questions: Sequence[Question], pools: Mapping[str, Sequence[str]], settings: BeamSettings
) -> dict[str, list[list[Kept]]]:
    """For each question id, for each number of shots 1..shots, the kept sequences, best first.

    A sequence's score is the sum of its steps' InfoScores, which telescopes to P(y | S, x) - P(y | x). Ties go to
    the order of the pool. Raises DataError for a pool smaller than the number of shots.
    """
    for question in questions:
        if len(pools[question.id]) < settings.shots:
            raise DataError(
                f"question {question.id} has a pool of {len(pools[question.id])}, fewer than {settings.shots} shots.",
                "Set sampler.k higher or the shots lower.",
            )
    bare = scorer.logprobs([(q, ()) for q in questions], "no demonstrations")
    base = {q.id: _value(lp.mean, settings.form) for q, lp in zip(questions, bare, strict=True)}
    kept: dict[str, list[list[Kept]]] = {q.id: [] for q in questions}
    extensions: dict[str, Sequence[str]] = {q.id: list(pools[q.id]) for q in questions}
    for shots in range(1, settings.shots + 1):
        rows = [
            (q, (*start, new))
            for q in questions
            for start in ([k.demonstrations for k in kept[q.id][-1]] if shots > 1 else [()])
            for new in extensions[q.id]
            if new not in start
        ]
        found = scorer.logprobs(rows, f"beam search, {shots} shot{'s' if shots > 1 else ''}")
        level: dict[str, list[Kept]] = {q.id: [] for q in questions}
        for (q, ids), logprob in zip(rows, found, strict=True):
            level[q.id].append(Kept(q.id, ids, _value(logprob.mean, settings.form) - base[q.id]))
        for q in questions:
            ranked = sorted(level[q.id], key=lambda k: -k.score)
            kept[q.id].append(ranked[: settings.beam])
            if shots == 1 and settings.width is not None:
                # At least `shots` demonstrations, so that every sequence can be filled.
                extensions[q.id] = [k.demonstrations[0] for k in ranked[: max(settings.width, settings.shots)]]
    return kept


def _value(mean_logprob: float, form: Form) -> float:
    return mean_logprob if form == "log" else math.exp(mean_logprob)


class OracleSettings(BaseModel):
    """The search with the true answers that bounds what any selector could choose from a pool.

    A beam search by InfoScore keeps `beam` sequences a shot count; their answers are generated and the most accurate
    counts, so that `oracle` is a lower bound of the best that the pool holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beam: int = Field(3, ge=1)
    width: int | None = Field(8, ge=1)


def oracle(
    scorer: Scorer,
    questions: Sequence[Question],
    pools: Mapping[str, Sequence[str]],
    shots: int,
    settings: OracleSettings,
) -> dict[int, list[Ids]]:
    """For each number of shots 1..shots, the best measured sequence of each question, in order."""
    search = BeamSettings(beam=settings.beam, shots=shots, width=settings.width)
    kept = beam_search(scorer, questions, pools, search)
    best: dict[int, list[Ids]] = {}
    for n in range(1, shots + 1):
        rows = [(q, k.demonstrations) for q in questions for k in kept[q.id][n - 1]]
        accuracies = iter([accuracy for _, _, accuracy in scorer.answers(rows, f"oracle, {n} shots")])
        best[n] = []
        for q in questions:
            group = kept[q.id][n - 1]
            scores = [next(accuracies) for _ in group]
            best[n].append(group[int(np.argmax(scores))].demonstrations)  # ties: the higher InfoScore
    return best
