"""Train the demo VLM: a 2 M parameter Qwen2.5-VL that knows some facts and copies the rest from its demonstrations.

    python -m leverplus_models.demo.train OUT [--vision-steps N] [--steps N] [--seed S]

Two stages. (1) The vision tower alone learns shape, colour and background through three linear heads on the mean
visual token; its merger is then scaled so that visual tokens have the size of text embeddings, and it is frozen.
(2) The language model learns on sequences of 1 to 7 items in the layout of `leverplus_core.prompt`, with the loss
on every item's answer. Each sequence draws a new table of facts (`world.draw_table`), and most are *bursty* (few
topics, shapes and colours), which is what makes copying from a matching demonstration appear (Chan et al. 2022,
"Data Distributional Properties Drive Emergent In-Context Learning in Transformers").

The hidden matrices are trained with Muon (Jordan et al. 2024), written here because torch.optim.Muon orthogonalises
in bfloat16, which a CPU without bfloat16 arithmetic runs a hundred times slower than float32.

A killed training goes on from OUT/train-state.pt when the same command is given again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from leverplus_datasets import world
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

SYSTEM = "Answer with one word."
VISUAL_TOKENS = 4
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>", "<unk>",
)  # fmt: skip


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of the world and of the prompt, with Qwen's special tokens."""
    text = [SYSTEM, "system user assistant Question : Short answer : yes no , . ? ! '"]
    for topic in world.TOPICS.values():
        text += [*topic.phrasings, *topic.words]
    text += [*world.SHAPES, *world.COLOURS, *world.BACKGROUNDS]
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated")]
    )
    words = sorted({word.lower() for line in text for word, _ in split.pre_tokenize_str(line)})
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        extra_special_tokens=list(SPECIAL[1:7]),
        padding_side="left",
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The geometry of the demo model."""

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "initializer_range": 0.06,
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 3,
            "out_hidden_size": 160,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2],
            "initializer_range": 0.06,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def image_processor() -> Qwen2VLImageProcessorPil:
    pixels = world.SIDE**2
    return Qwen2VLImageProcessorPil(size={"shortest_edge": pixels, "longest_edge": pixels})


# --- the optimiser ---------------------------------------------------------------------------------------------


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz, in float32; matrices of one shape are handled as one batch."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))
                # 0.2 sqrt(max(n, m)) gives the update the size of an AdamW one (Liu et al. 2025, Moonlight).
                scale = 0.2 * math.sqrt(max(shape))
                for p, update in zip(params, _orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)


def _orthogonal(g: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x if wide else x.mT


def _optimizers(module: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in module.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in module.parameters() if id(p) not in chosen]
    return [Muon(matrices, lr), torch.optim.AdamW(rest, lr, betas=(0.9, 0.98), weight_decay=0.0)]


def _set_lr(optimizers: list[torch.optim.Optimizer], step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, constant, then a linear decay to zero over the last 40% of the steps."""
    lr = peak * min(1.0, (step + 1) / warmup, (steps - step) / (0.4 * steps))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
    return lr


# --- stage 1: the vision tower -----------------------------------------------------------------------------------


@dataclass
class Pictures:
    """Rendered pictures, N of them: what each shows, and its patches (N, 16, 1176) from the true image processor."""

    things: list[world.Thing]
    patches: Tensor

    @classmethod
    def draw(cls, count: int, seed: int) -> Pictures:
        rng = np.random.default_rng(seed)
        processor = image_processor()
        things = [world.draw_thing(rng) for _ in range(count)]
        patches = torch.empty(count, 16, 1176, dtype=torch.float16)
        for start in range(0, count, 500):
            images = [world.draw_picture(thing, rng) for thing in things[start : start + 500]]
            pixels = processor(images=images, return_tensors="pt")["pixel_values"]
            patches[start : start + len(images)] = pixels.view(len(images), 16, -1).half()
        return cls(things, patches)

    def labels(self) -> Tensor:  # (N, 3)
        colours, backgrounds = list(world.COLOURS), list(world.BACKGROUNDS)
        return torch.tensor(
            [
                (world.SHAPES.index(t.shape), colours.index(t.colour), backgrounds.index(t.background))
                for t in self.things
            ]
        )


def visual_tokens(model: Qwen2_5_VLForConditionalGeneration, patches: Tensor) -> Tensor:
    """(N, 16, 1176) patches -> (N, 4, 160) visual tokens."""
    grid = torch.tensor([[1, 4, 4]]).expand(len(patches), 3)
    out = model.model.visual(patches.float().flatten(0, 1), grid_thw=grid)
    return out.pooler_output.view(len(patches), VISUAL_TOKENS, -1)


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration, train: Pictures, held_out: Pictures, steps: int, log: Log
) -> None:
    """Fit the tower to shape, colour and background; ends with visual tokens of standard deviation 0.2."""
    tower = model.model.visual
    heads = nn.ModuleList(nn.Linear(160, n) for n in (len(world.SHAPES), len(world.COLOURS), len(world.BACKGROUNDS)))
    labels, held_out_labels = train.labels(), held_out.labels()
    optimizers = [
        *_optimizers(tower, 2e-3),
        torch.optim.AdamW(heads.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        _set_lr(optimizers, step, steps, 2e-3, 50)
        rows = torch.randint(len(train.things), (128,), generator=generator)
        mean = visual_tokens(model, train.patches[rows]).mean(1)  # (128, 160)
        losses = [F.cross_entropy(head(mean), labels[rows, i]) for i, head in enumerate(heads)]
        sum(losses, torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            with torch.no_grad():
                mean = torch.cat([visual_tokens(model, p).mean(1) for p in held_out.patches.split(256)])
                right = [(head(mean).argmax(-1) == held_out_labels[:, i]).float().mean() for i, head in enumerate(heads)]
            names = ("shape", "colour", "background")
            log("vision", step + 1, loss=float(sum(losses, torch.zeros(())).detach()), **{n: float(r) for n, r in zip(names, right, strict=True)})
    with torch.no_grad():
        size = visual_tokens(model, held_out.patches[:256]).std()
        tower.merger.mlp[2].weight.mul_(0.2 / size)
        tower.merger.mlp[2].bias.mul_(0.2 / size)


# --- stage 2: the language model -----------------------------------------------------------------------------------


@dataclass
class Batch:
    """`B` sequences of `T` tokens: ids (B, T), pictures (B, K), 3-D positions (3, B, T), answer targets."""

    ids: Tensor
    pictures: Tensor
    positions: Tensor
    target_at: Tensor  # (B, K + 1): where the token before each answer stands, and before the final end mark
    targets: Tensor  # (B, K + 1)
    copyable: Tensor  # (B,): the last answer differs from the default and an earlier item shows it
    default: Tensor  # (B,): the last answer is a fact's default
    perceptual: Tensor  # (B,)


class Sequences:
    """Draws training sequences: the prompt of `leverplus_core.prompt` with `k - 1` demonstrations, and its answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, things: list[world.Thing], seed: int) -> None:
        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        self.rng = np.random.default_rng(seed)
        self.things = things
        self.by_kind: dict[tuple[str, str], list[int]] = {}
        for i, thing in enumerate(things):
            self.by_kind.setdefault((thing.shape, thing.colour), []).append(i)
        self.head = ids(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        self.tail = ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end = ids("<|im_end|>")
        self.image = ids("<|vision_start|>" + "<|image_pad|>" * VISUAL_TOKENS + "<|vision_end|>")
        self.questions = {
            name: [ids(f"Question:{text} Short answer:") for text in topic.phrasings]
            for name, topic in world.TOPICS.items()
        }
        words = {w for t in world.TOPICS.values() for w in t.words} | set(world.SHAPES) | set(world.COLOURS)
        self.words = {word: ids(word)[0] for word in words}
        self.defaults = world.default_table()
        longest = max(len(q) for phrasings in self.questions.values() for q in phrasings)
        self.item = len(self.image) + longest + 1
        self.length = {k: 8 * math.ceil((len(self.head) + k * self.item + len(self.tail) + 2) / 8) for k in range(1, 10)}

    def batch(self, size: int, k: int) -> Batch:
        length = self.length[k]
        ids = np.zeros((size, length), dtype=np.int64)
        positions = np.zeros((3, size, length), dtype=np.int64)
        pictures = np.zeros((size, k), dtype=np.int64)
        at = np.zeros((size, k + 1), dtype=np.int64)
        targets = np.zeros((size, k + 1), dtype=np.int64)
        flags = np.zeros((3, size), dtype=bool)
        for row in range(size):
            sequence = self._sequence(k)
            tokens, n = sequence["ids"], len(sequence["ids"])
            ids[row, :n] = tokens
            positions[:, row, :n] = sequence["positions"]
            pictures[row], at[row], targets[row] = sequence["pictures"], sequence["at"], sequence["targets"]
            flags[:, row] = sequence["flags"]
        t = torch.from_numpy
        return Batch(t(ids), t(pictures), t(positions), t(at), t(targets), t(flags[0]), t(flags[1]), t(flags[2]))

    def _sequence(self, k: int) -> dict[str, Any]:
        rng, names = self.rng, list(world.TOPICS)
        bursty = rng.random() < 0.9
        spread = (lambda: int(rng.integers(1, 4))) if bursty else (lambda: 99)
        topics = self._some(names, spread())
        shapes = self._some(list(world.SHAPES), spread())
        colours = self._some(list(world.COLOURS), spread())
        keep = rng.uniform(0.25, 0.5)
        table: world.Table = {}
        tokens, pictures, at, targets = list(self.head), [], [], []
        starts: list[int] = []
        seen: set[tuple[str, str]] = set()
        flags = (False, False, False)
        for item in range(k):
            name = topics[rng.integers(len(topics))]
            kind = (shapes[rng.integers(len(shapes))], colours[rng.integers(len(colours))])
            picture = self.by_kind[kind][rng.integers(len(self.by_kind[kind]))]
            topic = world.TOPICS[name]
            value = self.things[picture].value(topic.key)
            cell = (name, value)
            if topic.perceptual:
                word = value
            else:
                if cell not in table:
                    kept = rng.random() < keep
                    table[cell] = self.defaults[cell] if kept else topic.words[rng.integers(len(topic.words))]
                word = table[cell]
                is_default = word == self.defaults[cell]
            if item == k - 1:
                flags = (
                    not topic.perceptual and cell in seen and not is_default,
                    not topic.perceptual and cell not in seen and is_default,
                    topic.perceptual,
                )
            seen.add(cell)
            starts.append(len(tokens) + 1)
            tokens += self.image
            phrasings = self.questions[name]
            tokens += phrasings[rng.integers(len(phrasings))]
            if item == k - 1:
                tokens += self.tail
            at.append(len(tokens) - 1)
            tokens.append(self.words[word])
            targets.append(self.words[word])
            pictures.append(picture)
        at.append(len(tokens) - 1)
        targets.append(self.end[0])
        return {
            "ids": tokens, "positions": mrope_positions(len(tokens), starts), "pictures": pictures,
            "at": at, "targets": targets, "flags": flags,
        }  # fmt: skip

    def _some(self, values: list[str], n: int) -> list[str]:
        return [values[i] for i in self.rng.permutation(len(values))[:n]]


def mrope_positions(length: int, image_starts: list[int]) -> np.ndarray:
    """Qwen2.5-VL's 3-D positions (3, length) for 2 x 2 visual tokens at `image_starts` (as `get_rope_index` gives)."""
    positions = np.zeros((3, length), dtype=np.int64)
    cursor, here = 0, 0
    for start in image_starts:
        positions[:, cursor:start] = here + np.arange(start - cursor)
        here += start - cursor
        positions[0, start : start + 4] = here
        positions[1, start : start + 4] = here + np.array([0, 0, 1, 1])
        positions[2, start : start + 4] = here + np.array([0, 1, 0, 1])
        here, cursor = here + 2, start + 4
    positions[:, cursor:] = here + np.arange(length - cursor)
    return positions


K_SHARES = {7: 0.40, 5: 0.30, 3: 0.17, 2: 0.08, 1: 0.05}
"""Items a sequence -> share of the steps. Every step has about as many tokens: shorter sequences, more of them."""

TOKENS_PER_STEP = 4096


class Forward(nn.Module):
    """Answer logits from token ids and cached visual tokens; one compiled function a sequence length."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, image_token: int) -> None:
        super().__init__()
        self.language, self.image_token = model.model.language_model, image_token

    def forward(self, ids: Tensor, visual: Tensor, positions: Tensor, at: Tensor) -> Tensor:
        embedded = self.language.embed_tokens(ids)  # (B, T, D)
        embedded = embedded.masked_scatter((ids == self.image_token)[..., None], visual)
        hidden = self.language(inputs_embeds=embedded, position_ids=positions, use_cache=False).last_hidden_state
        picked = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))  # (B, K + 1, D)
        return picked @ self.language.embed_tokens.weight.T


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    visual: Tensor,
    things: list[world.Thing],
    steps: int,
    lr: float,
    seed: int,
    out: Path,
    log: Log,
) -> None:
    """Fit the language model on drawn sequences over the cached visual tokens (N, 4, 160) of the train pictures."""
    image_token = model.config.image_token_id
    forward = Forward(model, image_token)
    compiled = torch.compile(forward, dynamic=False)
    optimizers = _optimizers(model.model.language_model, lr)
    state_file = out / "train-state.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["steps"] == steps:
            model.model.language_model.load_state_dict(state["model"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            first = state["step"]
    sequences = Sequences(tokenizer, things, seed)
    began, done = time.perf_counter(), first
    for step in range(first, steps):
        # A generator a step, so that a resumed training sees the sequences that an unbroken one would have seen.
        sequences.rng = np.random.default_rng([seed, step])
        k = int(sequences.rng.choice(list(K_SHARES), p=list(K_SHARES.values())))
        batch = sequences.batch(TOKENS_PER_STEP // sequences.length[k], k)
        now = _set_lr(optimizers, step, steps, lr, 100)
        logits = compiled(batch.ids, visual[batch.pictures].flatten(0, 2), batch.positions, batch.target_at)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.model.language_model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            rate = (step + 1 - done) / (time.perf_counter() - began)
            log("language", step + 1, lr=now, loss=float(loss.detach()), steps_per_s=rate, **measure(forward, tokenizer, visual, things))
            scratch = state_file.with_suffix(".tmp")
            torch.save(
                {
                    "step": step + 1, "steps": steps, "model": model.model.language_model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                },
                scratch,
            )  # fmt: skip
            scratch.replace(state_file)
            began, done = time.perf_counter(), step + 1


@torch.no_grad()
def measure(
    forward: Forward, tokenizer: PreTrainedTokenizerFast, visual: Tensor, things: list[world.Thing], k: int = 5
) -> dict[str, float]:
    """Accuracy of the last answer after `k - 1` demonstrations, on worlds drawn apart from the training ones.

    `copy`: the fact is not the default and an earlier item shows it. `default`: it is, and none does.
    """
    batch = Sequences(tokenizer, things, seed=9_999_991).batch(1500, k)
    right = []
    for rows in torch.arange(1500).split(250):
        logits = forward(batch.ids[rows], visual[batch.pictures[rows]].flatten(0, 2), batch.positions[:, rows],
                         batch.target_at[rows])  # fmt: skip
        right.append(logits[:, -2].argmax(-1) == batch.targets[rows, -2])
    hit = torch.cat(right).float()
    return {
        "copy": float(hit[batch.copyable].mean()),
        "default": float(hit[batch.default].mean()),
        "perceptual": float(hit[batch.perceptual].mean()),
    }


# --- the command ---------------------------------------------------------------------------------------------------


class Log:
    """One JSON line a measurement, to OUT/train-log.jsonl and to standard output."""

    def __init__(self, file: Path) -> None:
        self.file, self.began = file, time.perf_counter()

    def __call__(self, stage: str, step: int, **values: float) -> None:
        row = {"stage": stage, "step": step, "elapsed_s": round(time.perf_counter() - self.began, 1)}
        row |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with self.file.open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def _batches(patches: Tensor, size: int = 256) -> Iterator[Tensor]:
    yield from patches.split(size)


def train(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint, the log and the state to resume from.")],
    vision_steps: Annotated[int, typer.Option(help="Steps of 128 pictures.")] = 1800,
    steps: Annotated[int, typer.Option(help="Steps of about 4,096 tokens.")] = 5000,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the language model.")] = 2e-3,
    pictures: Annotated[int, typer.Option(help="Pictures rendered for training.")] = 32_000,
    seed: int = 0,
) -> None:
    """Train the demo VLM and write a checkpoint that `Qwen2_5_VLForConditionalGeneration` loads."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "train-log.jsonl")
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    for name, p in model.model.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            p.data.mul_((2 * 4) ** -0.5)
    held_out = Pictures.draw(2000, seed + 1)
    train_pictures = Pictures.draw(pictures, seed)
    tower_file = out / "tower.pt"
    if tower_file.exists():
        model.model.visual.load_state_dict(torch.load(tower_file, weights_only=True))
    else:
        train_vision(model, train_pictures, held_out, vision_steps, log)
        torch.save(model.model.visual.state_dict(), tower_file)
    with torch.no_grad():
        visual = torch.cat([visual_tokens(model, p) for p in _batches(train_pictures.patches)])
    things = train_pictures.things
    del train_pictures
    train_language(model, tokenizer, visual, things, steps, lr, seed, out, log)
    with torch.no_grad():
        visual = torch.cat([visual_tokens(model, p) for p in _batches(held_out.patches)])
    log("held-out pictures", steps, **measure(Forward(model, model.config.image_token_id), tokenizer, visual, held_out.things))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out / "checkpoint")
    tokenizer.save_pretrained(out / "checkpoint")
    image_processor().save_pretrained(out / "checkpoint")


if __name__ == "__main__":
    typer.run(train)
