"""Selectors: from a question and its pool to an ordered sequence of demonstrations, one choice at a time.

A `TrainableSelector` is the part of a recipe, its settings; a `Policy` is its network. It defines how a question and
its pool are encoded, how the next choice is scored and what a choice changes; what training, proposing and evaluation
need (probabilities, beams, samples, when to stop) is computed here. Letters at line ends: B questions, K pool, C
sequences per question, T steps, W width, S similarities.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leverplus_core.errors import DataError
from leverplus_core.selector.base import FeatureWidths, TrainableSelector

SIMILARITIES = 2  # image, text
COSINES = (
    ("image", "image"), ("text", "text"), ("text", "answer"), ("image", "answer"), ("image", "text"), ("text", "image"),
    ("state", "state"),
)  # fmt: skip
"""Pairs of blocks that `cosine_features` compares: of the question with the demonstration's."""


@dataclass(frozen=True)
class Blocks:
    """Named blocks of features, side by side: `rows` (..., D) with `widths`, block -> columns, in their order."""

    rows: Tensor
    widths: Mapping[str, int]

    def __getitem__(self, name: str) -> Tensor:
        """(..., D_name) the columns of one block."""
        end = self._end(name)
        return self.rows[..., end - self.widths[name] : end]

    def up_to(self, name: str) -> Tensor:
        """(..., D) the columns of all blocks up to and with `name`."""
        return self.rows[..., : self._end(name)]

    def _end(self, name: str) -> int:
        names = list(self.widths)
        return sum(self.widths[n] for n in names[: names.index(name) + 1])

    def at(self, index: Tensor | slice) -> Blocks:
        """The rows at `index` of the first dimension."""
        return Blocks(self.rows[index], self.widths)


@dataclass(frozen=True)
class Batch:
    """Questions with their pools.

    `question` and `candidates` are the blocks of `FeatureWidths`; `similarity` holds the cosines of image and of text
    between the question and each candidate; `pool_mask` is False where a shorter pool is padded (None: all are full).
    """

    question: Blocks  # (B, Dq)
    candidates: Blocks  # (B, K, Dc)
    similarity: Tensor  # (B, K, S)
    pool_mask: Tensor | None = None  # (B, K) bool

    def rows(self, start: int, stop: int) -> Batch:
        """Questions `start` to `stop`."""
        at = slice(start, stop)
        mask = None if self.pool_mask is None else self.pool_mask[at]
        return Batch(self.question.at(at), self.candidates.at(at), self.similarity[at], mask)

    @property
    def pool_size(self) -> int:
        """K, the largest pool."""
        return self.candidates.rows.shape[1]


@dataclass(frozen=True)
class Encoded:
    """What choosing needs of a batch, computed once for all its sequences."""

    start: Tensor  # (B, ...) the first state
    inputs: Tensor  # (B, K, W) what a chosen candidate tells the state
    keys: Tensor  # (B, K, W) what a state is compared with
    prior: Tensor  # (B, K) added to every step's scores; -inf where the pool is padded


class Policy(nn.Module):
    """A network that chooses demonstrations from a pool without repeats.

    Subclasses implement `encode`, `scores`, `next_state` and, with a learned stop, `stop_logit`. The probability of a
    sequence is the product of those of its steps; with a learned stop each step also continues with probability
    1 - p_stop, and the sequence ends with p_stop, so that sequences of different lengths compare.
    """

    query_mean: Tensor
    query_std: Tensor
    candidate_mean: Tensor
    candidate_std: Tensor

    def __init__(self, selector: TrainableSelector, widths: FeatureWidths, stops: bool = False) -> None:
        super().__init__()
        self.selector, self.widths, self.stops = selector, widths, stops
        for name, columns in (("query", widths.question), ("candidate", widths.candidate)):
            self.register_buffer(f"{name}_mean", torch.zeros(sum(columns.values())))
            self.register_buffer(f"{name}_std", torch.ones(sum(columns.values())))

    @abstractmethod
    def encode(self, batch: Batch) -> Encoded:
        """Question and pool, once for all sequences. Raises DataError when rows have another width."""

    @abstractmethod
    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        """(B, C, K) of the next step from states (B, C, ...); -inf where `chosen` (B, C, K) or the pool is padded."""

    @abstractmethod
    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        """(B, C, ...) the states once `position` (B, C) has been chosen."""

    def stop_logit(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        """(B, C) the log-odds of stopping in `state` (B, C, ...), where `chosen` (B, C, K) have been."""
        raise NotImplementedError(f"{type(self).__name__} cannot stop")

    @torch.no_grad()
    def fit_standardizer(self, queries: Tensor, candidates: Tensor) -> None:
        """Set the inputs' mean and deviation from the rows of train questions (N, Dq) and demonstrations (M, Dc)."""
        for name, rows in (("query", queries), ("candidate", candidates)):
            getattr(self, f"{name}_mean").copy_(rows.mean(0))
            getattr(self, f"{name}_std").copy_(rows.std(0, correction=0).clamp_min(1e-4))

    def standardized(self, batch: Batch) -> tuple[Blocks, Blocks]:
        """Question (B, Dq) and candidate (B, K, Dc) blocks as the selector was fitted to see them.

        Raises DataError for features of other widths.
        """
        self.check_widths(batch)
        question = (batch.question.rows - self.query_mean) / self.query_std
        candidates = (batch.candidates.rows - self.candidate_mean) / self.candidate_std
        return Blocks(question, self.widths.question), Blocks(candidates, self.widths.candidate)

    def check_widths(self, batch: Batch) -> None:
        """Raise DataError for features of other widths than the selector was created for."""
        given = {**batch.candidates.widths}
        if given != self.widths.candidate or dict(batch.question.widths) != self.widths.question:
            raise DataError(
                f"the features have columns {_listed(given)}, the selector was created for "
                f"{_listed(self.widths.candidate)}.",
                "Use the encoder that it was trained with.",
            )

    def step_log_probs(self, batch: Batch, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of `sequences` (B, C, T), pool positions, by teacher forcing: of each choice (B, C, T), and
        of continuing before each choice and of stopping after the last (B, C, T + 1; all 0 without a learned stop).

        Steps of -1 (padding, at the end) count 0.
        """
        encoded = self.encode(batch)
        c = sequences.shape[1]
        state = _spread(encoded.start, c)  # (B, C, ...)
        chosen = _none_chosen(encoded, c)
        choices, stops = [], []
        alive = torch.ones_like(sequences[..., 0], dtype=torch.bool)
        for position in sequences.unbind(-1):  # (B, C)
            real, at = position >= 0, position.clamp_min(0)
            stops.append(self._stop_step(encoded, state, chosen, real, alive))
            scores = self.scores(encoded, state, chosen)
            # A padded step may find nothing left in a short pool: all -inf, and its gradient NaN.
            scores = torch.where(real[..., None], scores, torch.zeros_like(scores))
            logp = scores.log_softmax(-1).gather(-1, at[..., None]).squeeze(-1)  # (B, C)
            choices.append(torch.where(real, logp, torch.zeros_like(logp)))
            chosen = chosen | _at(position, chosen)  # a padded step marks nothing
            state = self.next_state(encoded, state, at)
            alive = real
        stops.append(self._stop_step(encoded, state, chosen, torch.zeros_like(alive), alive))
        return torch.stack(choices, dim=-1), torch.stack(stops, dim=-1)

    def _stop_step(self, encoded: Encoded, state: Tensor, chosen: Tensor, goes_on: Tensor, alive: Tensor) -> Tensor:
        """(B, C) log-probability of the decision in `state`; 0 once the sequence has ended."""
        if not self.stops:
            return encoded.prior.new_zeros(goes_on.shape)
        logit = self.stop_logit(encoded, state, chosen)
        return torch.where(goes_on, F.logsigmoid(-logit), F.logsigmoid(logit)).masked_fill(~alive, 0.0)

    def log_probs(self, batch: Batch, sequences: Tensor) -> Tensor:
        """(B, C) log-probability of each ordered sequence (B, C, T), padded with -1."""
        choices, stops = self.step_log_probs(batch, sequences)
        return choices.sum(-1) + stops.sum(-1)

    @torch.no_grad()
    def beam_search(self, batch: Batch, shots: int, beams: int) -> tuple[Tensor, Tensor]:
        """The most probable sequences of `shots` choices: positions (B, beams, shots) and log-probabilities (B, beams)
        of the choices, best first.

        No demonstration comes twice in a sequence. There are fewer than `beams` where the pool has no more; a
        sequence that a padded pool cannot fill has log-probability -inf. Raises DataError when a pool has fewer than
        `shots`.
        """
        encoded, k = self._encode_for(batch, shots)
        total, state = encoded.prior.new_zeros(len(encoded.prior), 1), encoded.start[:, None]  # (B, C), (B, C, ...)
        positions = torch.zeros(*total.shape, 0, dtype=torch.long, device=total.device)
        chosen = _none_chosen(encoded, 1)
        possible = 1
        for step in range(shots):
            possible *= k - step
            logp = self.scores(encoded, state, chosen).log_softmax(-1) + total[..., None]  # (B, C, K)
            total, flat = logp.flatten(1).topk(min(beams, possible), dim=1)  # (B, C')
            parent, position = flat // k, flat % k
            positions = torch.cat([gather_rows(positions, parent), position[..., None]], dim=-1)
            chosen = gather_rows(chosen, parent) | _at(position, chosen)
            state = self.next_state(encoded, gather_rows(state, parent), position)
        return positions, total

    @torch.no_grad()
    def adaptive(self, batch: Batch, most: int, beams: int) -> list[list[int]]:
        """For each question the best sequence of `most` choices, cut where stopping is more probable than continuing.

        May be empty: the question is then shown without demonstrations. Raises DataError for a policy that cannot stop.
        """
        if not self.stops:
            raise DataError("this selector has no learned stop.", "Train one with `selector.stop=true`.")
        positions = self.beam_search(batch, most, beams)[0][:, :1]  # (B, 1, T)
        encoded = self.encode(batch)
        state = _spread(encoded.start, 1)
        chosen = _none_chosen(encoded, 1)
        logits = []
        for position in positions.unbind(-1):
            logits.append(self.stop_logit(encoded, state, chosen)[:, 0])
            chosen = chosen | _at(position, chosen)
            state = self.next_state(encoded, state, position)
        stop = torch.stack([*logits, torch.ones_like(logits[0])], dim=-1) > 0  # (B, T + 1); at the end it stops
        lengths = stop.int().argmax(-1).tolist()
        return [row[0][:n] for row, n in zip(positions.tolist(), lengths, strict=True)]

    @torch.no_grad()
    def sample(
        self, batch: Batch, shots: int, count: int, temperature: float, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """(B, count, shots) sequences drawn at `temperature`; no demonstration comes twice in a sequence.

        Each question is drawn with a generator of its own, of the CPU on any device: what is drawn does not depend on
        the batch. Raises DataError when a pool has fewer than `shots`.
        """
        encoded, _ = self._encode_for(batch, shots)
        state, chosen = _spread(encoded.start, count), _none_chosen(encoded, count)
        drawn: list[Tensor] = []
        for _ in range(shots):
            probability = (self.scores(encoded, state, chosen) / temperature).softmax(-1).cpu()  # (B, C, K)
            rows = zip(probability, generators, strict=True)
            position = torch.cat([torch.multinomial(row, 1, generator=draw).view(1, count) for row, draw in rows])
            position = position.to(chosen.device)  # (B, C)
            drawn.append(position)
            chosen = chosen | _at(position, chosen)
            state = self.next_state(encoded, state, position)
        return torch.stack(drawn, dim=-1)

    def _encode_for(self, batch: Batch, shots: int) -> tuple[Encoded, int]:
        k = batch.pool_size
        smallest = k if batch.pool_mask is None else int(batch.pool_mask.sum(1).min())
        if not 1 <= shots <= smallest:
            raise DataError(
                f"{shots} shots were requested from a pool of {smallest}.", "Use fewer shots, or a larger pool."
            )
        return self.encode(batch), k


class StopHead(nn.Module):
    """Whether the chosen demonstrations are enough: from the state, the question, and how well the chosen ones fit.

    The fit is the score of each candidate before any choice: of the best chosen one, of the best of all, and the number
    chosen. Gradients do not reach the choices: their inputs are detached.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * width + 3, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )

    def forward(self, state: Tensor, question: Tensor, first_scores: Tensor, chosen: Tensor) -> Tensor:
        """(B, C) log-odds from states and questions (B, C, W), scores (B, K) and `chosen` (B, C, K)."""
        state, question, scores = state.detach(), question.detach(), first_scores.detach()[:, None]
        # Scores are logits of a few units: a tenth brings them to the scale of normalized features.
        best_chosen = scores.masked_fill(~chosen, -10.0).amax(-1, keepdim=True).clamp_min(-10.0) / 10
        best = scores.amax(-1, keepdim=True).expand_as(best_chosen) / 10
        count = chosen.sum(-1, keepdim=True) / 4
        logit: Tensor = self.layers(torch.cat([state, question, best_chosen, best, count], dim=-1)).squeeze(-1)
        return logit


def normalize_per_pool(similarity: Tensor, mask: Tensor | None) -> Tensor:
    """(B, K, S) in deviations from each pool's mean: cosines of some encoders differ in the third digit only."""
    if mask is None:
        mask = torch.ones_like(similarity[..., 0], dtype=torch.bool)
    real = mask[..., None].to(similarity.dtype)  # (B, K, 1)
    n = real.sum(1, keepdim=True).clamp_min(1)
    centered = (similarity - (similarity * real).sum(1, keepdim=True) / n) * real
    deviation = ((centered**2).sum(1, keepdim=True) / n).sqrt()
    return centered / deviation.clamp_min(1e-4)


def cosine_features(batch: Batch) -> Tensor:
    """(B, K, len(COSINES)) cosines of pairs of blocks; 0 where the two are not from one encoder, or are absent.

    Image and text are from one encoder, and so in one space, where they are equally wide.
    """
    nothing = batch.candidates.rows.new_zeros(batch.candidates.rows.shape[:2])
    columns = []
    for ours, theirs in COSINES:
        question, candidate = batch.question[ours][:, None], batch.candidates[theirs]
        fits = question.shape[-1] == candidate.shape[-1]
        columns.append((question * candidate).sum(-1) if fits else nothing)
    return torch.stack(columns, dim=-1)


def _listed(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in widths.items())


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """(B, C, ...) the rows of (B, K, ...) at `index` (B, C)."""
    shape = (*index.shape, *(1,) * (rows.dim() - 2))
    return rows.gather(1, index.view(shape).expand(*index.shape, *rows.shape[2:]))


def _none_chosen(encoded: Encoded, count: int) -> Tensor:
    """(B, C, K) False, for each of `count` sequences."""
    b, k = encoded.prior.shape
    return torch.zeros(b, count, k, dtype=torch.bool, device=encoded.prior.device)


def _at(position: Tensor, chosen: Tensor) -> Tensor:
    """(B, C, K) True at `position` (B, C) of the pool, nowhere for -1; as wide as `chosen`.

    Unlike `one_hot`, it checks nothing on the CPU for which a GPU would be waited for.
    """
    return position[..., None] == torch.arange(chosen.shape[-1], device=chosen.device)


def _spread(start: Tensor, count: int) -> Tensor:
    """(B, C, ...) one state for each of `count` sequences."""
    return start[:, None].expand(start.shape[0], count, *start.shape[1:])
