"""Train the demo model: a 2 M parameter Qwen2.5-VL that knows some facts and copies the rest from its demonstrations.

    python -m tools.demo_vlm.train OUT [--vision-steps N] [--steps N] [--seed S]

Two stages. (1) The vision tower alone learns shape, color and background through three linear heads on the mean
visual token; its merger is then scaled so that visual tokens have the size of text embeddings, and it is frozen.
(2) The language model learns on sequences of 1 to 7 items in the layout of `leverplus_core.scoring.prompt`, with the
loss on every item's answer. Each sequence draws a new table of facts (`world.draw_table`), and most are *bursty* (few
topics, shapes and colors), which is what makes copying from a matching demonstration appear (Chan et al. 2022,
"Data Distributional Properties Drive Emergent In-Context Learning in Transformers").

The same command resumes an interrupted training from OUT/train-state.pt.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from leverplus_demo import world
from tools.demo_vlm.geometry import VISUAL_TOKENS, build_config, build_tokenizer, image_processor
from tools.demo_vlm.muon import optimizers as make_optimizers
from tools.demo_vlm.muon import set_lr
from tools.demo_vlm.sequences import Sequences

# --- stage 1: the vision tower -----------------------------------------------------------------------------------


@dataclass
class Pictures:
    """N rendered pictures: their scenes, and their patches (N, 16, 1176) from the image processor."""

    scenes: list[world.Scene]
    patches: Tensor

    @classmethod
    def draw(cls, count: int, seed: int) -> Pictures:
        """Draw and preprocess `count` pictures of random scenes."""
        rng = np.random.default_rng(seed)
        processor = image_processor()
        scenes = [world.draw_scene(rng) for _ in range(count)]
        patches = torch.empty(count, 16, 1176, dtype=torch.float16)
        for start in range(0, count, 500):
            images = [world.draw_picture(scene, rng) for scene in scenes[start : start + 500]]
            pixels = processor(images=images, return_tensors="pt")["pixel_values"]
            patches[start : start + len(images)] = pixels.view(len(images), 16, -1).half()
        return cls(scenes, patches)

    def labels(self) -> Tensor:
        """(N, 3) class indices of shape, color and background."""
        colors, backgrounds = list(world.COLORS), list(world.BACKGROUNDS)
        return torch.tensor(
            [(world.SHAPES.index(t.shape), colors.index(t.color), backgrounds.index(t.background)) for t in self.scenes]
        )


def visual_tokens(model: Qwen2_5_VLForConditionalGeneration, patches: Tensor) -> Tensor:
    """(N, 16, 1176) patches -> (N, 4, 160) visual tokens."""
    grid = torch.tensor([[1, 4, 4]]).expand(len(patches), 3)
    out = model.model.visual(patches.float().flatten(0, 1), grid_thw=grid)
    tokens: Tensor = out.pooler_output.view(len(patches), VISUAL_TOKENS, -1)
    return tokens


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration, train: Pictures, validation: Pictures, steps: int, log: Log
) -> None:
    """Fit the tower to shape, color and background; ends with visual tokens of standard deviation 0.2."""
    tower = model.model.visual
    heads = nn.ModuleList(nn.Linear(160, n) for n in (len(world.SHAPES), len(world.COLORS), len(world.BACKGROUNDS)))
    labels, validation_labels = train.labels(), validation.labels()
    optimizers = [
        *make_optimizers(tower, 2e-3),
        torch.optim.AdamW(heads.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        set_lr(optimizers, step, steps, 2e-3, 50)
        rows = torch.randint(len(train.scenes), (128,), generator=generator)
        mean = visual_tokens(model, train.patches[rows]).mean(1)  # (128, 160)
        losses = [F.cross_entropy(head(mean), labels[rows, i]) for i, head in enumerate(heads)]
        sum(losses, torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            with torch.no_grad():
                mean = torch.cat([visual_tokens(model, p).mean(1) for p in validation.patches.split(256)])
                right = [
                    (head(mean).argmax(-1) == validation_labels[:, i]).float().mean() for i, head in enumerate(heads)
                ]
            names = ("shape", "colour", "background")  # as in the stored log
            log(
                "vision",
                step + 1,
                loss=float(sum(losses, torch.zeros(())).detach()),
                **{n: float(r) for n, r in zip(names, right, strict=True)},
            )
    with torch.no_grad():
        size = visual_tokens(model, validation.patches[:256]).std()
        tower.merger.mlp[2].weight.mul_(0.2 / size)
        tower.merger.mlp[2].bias.mul_(0.2 / size)


# --- stage 2: the language model -----------------------------------------------------------------------------------


K_SHARES = {7: 0.40, 5: 0.30, 3: 0.17, 2: 0.08, 1: 0.05}
"""Items per sequence -> share of the steps. Every step has about TOKENS_PER_STEP tokens."""

TOKENS_PER_STEP = 4096


class Forward(nn.Module):
    """Answer logits from token ids and cached visual tokens; compiled once per sequence length."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, image_token: int) -> None:
        super().__init__()
        self.language, self.image_token = model.model.language_model, image_token

    def forward(self, ids: Tensor, visual: Tensor, positions: Tensor, at: Tensor) -> Tensor:
        """(B, K + 1, vocabulary) logits after the positions `at` (B, K + 1) of `ids` (B, T).

        `visual` (4 B K, 160) fills the image tokens in order; `positions` is (3, B, T).
        """
        embedded = self.language.embed_tokens(ids)  # (B, T, D)
        embedded = embedded.masked_scatter((ids == self.image_token)[..., None], visual)
        hidden = self.language(inputs_embeds=embedded, position_ids=positions, use_cache=False).last_hidden_state
        picked = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))  # (B, K + 1, D)
        logits: Tensor = picked @ self.language.embed_tokens.weight.T
        return logits


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    visual: Tensor,
    scenes: list[world.Scene],
    steps: int,
    learning_rate: float,
    seed: int,
    out: Path,
    log: Log,
) -> None:
    """Fit the language model on drawn sequences over the cached visual tokens (N, 4, 160) of the train pictures."""
    image_token = model.config.image_token_id
    forward = Forward(model, image_token)
    compiled = torch.compile(forward, dynamic=False)
    optimizers = make_optimizers(model.model.language_model, learning_rate)
    state_file = out / "train-state.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["steps"] == steps:
            model.model.language_model.load_state_dict(state["model"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            first = state["step"]
    sequences = Sequences(tokenizer, scenes, seed)
    began, done = time.perf_counter(), first
    for step in range(first, steps):
        # One generator per step, so that a resumed training sees the sequences of an uninterrupted one.
        sequences.rng = np.random.default_rng([seed, step])
        k = int(sequences.rng.choice(list(K_SHARES), p=list(K_SHARES.values())))
        batch = sequences.batch(TOKENS_PER_STEP // sequences.length[k], k)
        now = set_lr(optimizers, step, steps, learning_rate, 100)
        logits = compiled(batch.ids, visual[batch.pictures].flatten(0, 2), batch.positions, batch.target_at)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.model.language_model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            rate = (step + 1 - done) / (time.perf_counter() - began)
            log(
                "language",
                step + 1,
                lr=now,
                loss=float(loss.detach()),
                steps_per_s=rate,
                **measure(forward, tokenizer, visual, scenes),
            )
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
    forward: Forward, tokenizer: PreTrainedTokenizerFast, visual: Tensor, scenes: list[world.Scene], k: int = 5
) -> dict[str, float]:
    """Accuracy of the last answer after `k - 1` demonstrations, on tables that training did not draw.

    `copy`: the fact differs from the default and an earlier item shows it. `default`: the fact is the default and no
    earlier item shows it.
    """
    batch = Sequences(tokenizer, scenes, seed=9_999_991).batch(1500, k)
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
    """Writes one JSON line per measurement to OUT/train-log.jsonl and to standard output."""

    def __init__(self, file: Path) -> None:
        self.file, self.began = file, time.perf_counter()

    def __call__(self, stage: str, step: int, **values: float) -> None:
        row = {"stage": stage, "step": step, "elapsed_s": round(time.perf_counter() - self.began, 1)}
        row |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with self.file.open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def train(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint, the log and the state to resume from.")],
    vision_steps: Annotated[int, typer.Option(help="Steps of 128 pictures.")] = 1800,
    steps: Annotated[int, typer.Option(help="Steps of about 4,096 tokens.")] = 5000,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the language model.")] = 2e-3,
    pictures: Annotated[int, typer.Option(help="Pictures rendered for training.")] = 32_000,
    seed: int = 0,
) -> None:
    """Train the demo model and write a checkpoint that `Qwen2_5_VLForConditionalGeneration` loads."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "train-log.jsonl")
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    for name, p in model.model.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            p.data.mul_((2 * 4) ** -0.5)
    validation = Pictures.draw(2000, seed + 1)
    train_pictures = Pictures.draw(pictures, seed)
    tower_file = out / "tower.pt"
    if tower_file.exists():
        model.model.visual.load_state_dict(torch.load(tower_file, weights_only=True))
    else:
        train_vision(model, train_pictures, validation, vision_steps, log)
        torch.save(model.model.visual.state_dict(), tower_file)
    with torch.no_grad():
        visual = torch.cat([visual_tokens(model, p) for p in train_pictures.patches.split(256)])
    scenes = train_pictures.scenes
    del train_pictures
    train_language(model, tokenizer, visual, scenes, steps, learning_rate, seed, out, log)
    with torch.no_grad():
        visual = torch.cat([visual_tokens(model, p) for p in validation.patches.split(256)])
    log(
        "held-out pictures",
        steps,
        **measure(Forward(model, model.config.image_token_id), tokenizer, visual, validation.scenes),
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out / "checkpoint")
    tokenizer.save_pretrained(out / "checkpoint")
    image_processor().save_pretrained(out / "checkpoint")


if __name__ == "__main__":
    typer.run(train)
