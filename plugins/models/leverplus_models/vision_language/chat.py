"""A checkpoint's processor: its chat template, and its tokens and pixels of texts and images.

The template renders a prompt once, with a placeholder for each image. The placeholder and what a processor puts in its
place begin and end with added tokens, between which a tokenizer reads a text on its own: so the pieces of a prompt are
tokenized one by one, each distinct one once, and an image's tokens are taken from the processor. `HfVlm` compares this
with the processor's own call for each layout of prompts, and where the two differ the processor is called for every
prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from leverplus_core import CheckpointError, Image, Prompt, PromptError
from leverplus_models.checkpoint_model import say
from leverplus_models.engine.rows import Ints

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""What a processor makes of text; the rest is of images."""
SPLITTING = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan")
"""Switches of image processors that cut an image into tiles, each of which takes as many tokens as the image."""
MARK = "answer"

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What stands for an image in a prompt: text that joins the text before it, tokens, and text that joins what
    follows. `visual` (N,) says which tokens are visual, `types` are their token types by the name of the input. `first`
    and `last` are the tokens at both ends."""

    before: str
    ids: Ints
    after: str
    visual: Any
    first: str
    last: str
    types: Mapping[str, int]


class Chat:
    """The processor of the checkpoint `name`. With `split_images` off, images are not cut into tiles.

    Raises CheckpointError for a processor without a chat template or an image token.
    """

    def __init__(self, processor: Any, name: str, image_id: int, split_images: bool = False) -> None:
        self.processor, self.tokenizer, self.name, self.image_id = processor, processor.tokenizer, name, image_id
        self.template = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        if isinstance(self.template, dict):
            self.template = self.template.get("default")
        if not self.template:
            raise CheckpointError(
                f"the processor of '{name}' has no chat template.", "Give an instruction-tuned model."
            )
        token = getattr(processor, "image_token", None) or getattr(self.tokenizer, "image_token", None)
        if not token:
            raise CheckpointError(f"the processor of '{name}' has no image token.", "hf_vlm needs one for each image.")
        self.image_token = str(token)
        off = {} if split_images else {s: False for s in SPLITTING if hasattr(processor.image_processor, s)}
        self.options: dict[str, Any] = {"images_kwargs": off} if off else {}
        self.exact = True
        self._merges_system = self._warned = False
        self._compared: set[object] = set()
        self._piece = lru_cache(maxsize=1 << 16)(self._tokens_of_piece)

    # --- text ---------------------------------------------------------------------------------------------------------

    def render(self, prompt: Prompt) -> str:
        """The prompt as the chat template renders it, up to where the assistant answers.

        A system turn that the template refuses, or leaves out, becomes the beginning of the first user turn. A model
        that may think is told not to. Raises PromptError for a text with control tokens, CheckpointError where the
        template fails.
        """
        for turn in prompt.turns:
            for part in turn.content:
                if isinstance(part, str) and (found := self._control.search(part)):
                    raise PromptError(
                        prompt, f"the text {part[:80]!r} contains {found[0]!r}, a control token.", "Remove it."
                    )
        messages = [_message(turn.role, turn.content) for turn in prompt.turns]
        text, error = None, None
        if not self._merges_system:
            text, error = self._rendered(messages)
            shown = text is not None and all(
                part.strip() in text
                for turn in prompt.turns
                if turn.role == "system"
                for part in turn.content
                if isinstance(part, str)
            )
            if not shown and messages[0]["role"] == "system":
                merged, again = self._rendered(_without_system(messages))
                self._merges_system, text, error = merged is not None, merged, again or error
        else:
            text, error = self._rendered(_without_system(messages))
        if text is None:
            said = str(error).splitlines()[0] if error is not None and str(error) else type(error).__name__
            raise CheckpointError(
                f"the chat template of '{self.name}' refuses a prompt: {said[:200]}",
                "Set prompt.template or prompt.system to what the model was trained on.",
            )
        images = sum(isinstance(part, Image) for turn in prompt.turns for part in turn.content)
        if text.count(self.image_token) != images:
            raise CheckpointError(
                f"the chat template of '{self.name}' shows {text.count(self.image_token)} of {images} images.",
                "Set prompt.template to what the model was trained on.",
            )
        if not self._warned and not _in_order(prompt, text.split(self.image_token)):
            self._warned = True
            say(
                f"the chat template of '{self.name}' does not show a turn's images and texts in their order; "
                "with prompt.template: multi_turn each image has its own turn."
            )
        return text

    def _rendered(self, messages: Sequence[Message], generation: bool = True) -> tuple[str | None, Exception | None]:
        from jinja2 import TemplateError

        extra = {"enable_thinking": False} if "enable_thinking" in self.template else {}
        failed: Exception | None = None
        for form in (list(messages), _with_strings(messages)):  # what a template expects of a turn without images
            try:
                text = self.processor.apply_chat_template(
                    form, chat_template=self.template, tokenize=False, add_generation_prompt=generation, **extra
                )
            except (TemplateError, TypeError) as error:
                failed = failed or error
                continue
            if "{'type': 'text'" not in text:  # a list where the template expects a string
                return str(text), None
        return None, failed

    @cached_property
    def answer_frame(self) -> tuple[str, str]:
        """Spaces between the prompt and the answer, and what ends it, as the template renders an assistant's turn."""
        asked = [_message("user", (MARK,))]
        prompt, _ = self._rendered(asked)
        whole, _ = self._rendered([*asked, _message("assistant", (MARK,))], generation=False)
        if prompt is None or whole is None or not whole.startswith(prompt):
            return "", ""
        before, mark, after = whole[len(prompt) :].partition(MARK)
        return (before, after) if mark and not before.strip(" ") else ("", "")

    def after_control(self, text: str) -> str:
        """The end of `text`, after its last control token."""
        ends = [found.end() for found in self._added.finditer(text)]
        return text[ends[-1] :] if ends else text

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return _any_of([*self._special, self.image_token])

    @cached_property
    def _added(self) -> re.Pattern[str]:
        return _any_of([*(str(token) for token in self.tokenizer.added_tokens_decoder.values()), *self._special])

    @property
    def _special(self) -> list[str]:
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return [*added, *map(str, self.tokenizer.all_special_tokens)]

    # --- tokens -------------------------------------------------------------------------------------------------------

    def of_image(self, picture: Any) -> tuple[ImageTokens, dict[str, Any]]:
        """The tokens of an image, and the tensors that the model reads of it. Raises what the processor raises."""
        found = dict(self._call([self.image_token], [[picture]], add_special_tokens=False))
        whole = np.asarray(found["input_ids"][0], dtype=np.int64)
        added = {self.image_id, *self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids}
        inside = np.flatnonzero(np.isin(whole, list(added)))
        first, end = int(inside[0]), int(inside[-1]) + 1
        visual = whole[first:end] == self.image_id
        types = {
            name: int(np.asarray(found[name][0])[first:end][visual].max(initial=0))
            for name in TEXT_INPUTS[2:]
            if name in found
        }
        before, after = (self._decode(ids) for ids in (whole[:first], whole[end:]))
        tensors = {name: value for name, value in found.items() if name not in TEXT_INPUTS}
        left, right = (str(self.tokenizer.convert_ids_to_tokens(int(whole[at]))) for at in (first, end - 1))
        return ImageTokens(before, whole[first:end], after, visual, left, right, types), tensors

    def own_inputs(self, text: str, pictures: Sequence[Any]) -> dict[str, Any]:
        """The processor's own inputs of one prompt, as transformers' documentation calls it."""
        bos = self.tokenizer.bos_token
        more = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        return dict(self._call([text], [list(pictures)] if pictures else None, **more))

    def pixels(self, pictures: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The tensors that the model reads of the images of several prompts."""
        texts = [self.image_token * len(some) for some in pictures]
        found = self._call(texts, [list(some) for some in pictures], padding=True)
        return {name: value for name, value in dict(found).items() if name not in TEXT_INPUTS}

    def _call(self, texts: list[str], images: list[list[Any]] | None, **more: Any) -> Any:
        return self.processor(text=texts, images=images, return_tensors="pt", **more, **self.options)

    def ids(self, text: str, images: Sequence[ImageTokens]) -> list[Ints]:
        """The tokens of a rendered prompt's texts, between which those of `images` stand."""
        left: list[ImageTokens | None] = [None, *images]
        right: list[ImageTokens | None] = [*images, None]
        found = []
        for a, piece, b in zip(left, text.split(self.image_token), right, strict=True):
            whole = (a.after if a else "") + piece + (b.before if b else "")
            found.append(self._piece(whole, a.last if a else "", b.first if b else ""))
        return found

    def compared(self, layout: object) -> bool:
        """Whether prompts of this layout have been compared with the processor's own call; from now on they have."""
        known = layout in self._compared
        self._compared.add(layout)
        return known

    def _tokens_of_piece(self, text: str, left: str, right: str) -> Ints:
        # Between the tokens that stand beside it, so that it is read as it is inside of a prompt.
        ids = self.tokenizer(left + text + right, add_special_tokens=False)["input_ids"]
        ids = ids[1 if left else 0 : -1 if right else len(ids)]
        bos = self.tokenizer.bos_token
        starts = not left and not (bos and text.startswith(bos))
        return np.array([*self._start, *ids] if starts else ids, dtype=np.int64)

    @cached_property
    def _start(self) -> tuple[int, ...]:
        """The tokens with which the tokenizer itself begins a text."""
        if not getattr(self.processor, "text_kwargs", {}).get("add_special_tokens", True):
            return ()
        bare = self.tokenizer(MARK, add_special_tokens=False)["input_ids"]
        whole = self.tokenizer(MARK)["input_ids"]
        return tuple(whole[: len(whole) - len(bare)]) if whole[len(whole) - len(bare) :] == bare else ()

    def _decode(self, ids: Ints) -> str:
        return str(self.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)) if len(ids) else ""


def _message(role: str, content: Sequence[str | Image]) -> Message:
    parts = [{"type": "text", "text": c} if isinstance(c, str) else {"type": "image"} for c in content]
    return {"role": role, "content": parts}


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """`messages` with the system turn at the beginning of the turn after it."""
    if not messages or messages[0]["role"] != "system" or len(messages) == 1:
        return list(messages)
    system, first, *others = messages
    texts = [{**part, "text": f"{part['text']}\n\n"} for part in system["content"]]
    return [{"role": first["role"], "content": [*texts, *first["content"]]}, *others]


def _with_strings(messages: Sequence[Message]) -> list[Message]:
    """`messages` with strings as the content of turns that have no images."""

    def content(parts: list[dict[str, str]]) -> object:
        return parts if any("text" not in part for part in parts) else "".join(part["text"] for part in parts)

    return [{"role": message["role"], "content": content(message["content"])} for message in messages]


def _in_order(prompt: Prompt, pieces: Sequence[str]) -> bool:
    """Whether the texts between two images of a prompt are between them in its rendered `pieces`."""
    between: list[list[str]] = [[]]
    for turn in prompt.turns:
        for part in turn.content:
            if isinstance(part, Image):
                between.append([])
            else:
                between[-1].append(part.strip())
    return all(text in piece for texts, piece in zip(between[1:], pieces[1:], strict=True) for text in texts)


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted({token for token in tokens if token}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
