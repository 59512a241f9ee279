"""Pretrained checkpoints: where one is, what it contains, on which device it runs, and how it is loaded.

For the parts that read one (models, encoders). A checkpoint is named by a local folder, by the id of a Hugging Face hub
repository, or by the name under which an installed package ships one: an entry point of the group
`leverplus.checkpoints`, whose value is `package:relative/folder`. Code from a hub is never run. Importing this module
imports neither torch nor transformers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leverplus_core.errors import CheckpointError, LeverplusError
from leverplus_core.text import one_line

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Attention = Literal["sdpa", "eager"]

GROUP = "leverplus.checkpoints"
HUB_WAIT = 2.5
"""Seconds in which a hub has to answer before this process goes on without it."""
HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
CONTENT = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*.jinja")
"""The files of a checkpoint folder that decide a result."""


def find_checkpoint(path: str) -> str:
    """What `from_pretrained` takes for `path`: the folder of a packaged checkpoint, a local folder, or a hub id.

    A packaged name comes first; write `./name` for a folder of that name. Nothing is downloaded. Raises
    CheckpointError for a folder that does not exist or has no config.json.
    """
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == path:
            return str(_packaged_folder(entry))
    folder = Path(os.path.expanduser(path))
    if os.path.isdir(folder):
        if not os.path.isfile(folder / "config.json"):
            raise CheckpointError(f"no config.json in the checkpoint folder '{path}'.", "Give the folder that has it.")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise CheckpointError(f"no checkpoint folder '{path}'.", _known())
    if not HUB_ID.fullmatch(path):
        raise CheckpointError(f"'{path}' is neither a folder nor an id that a hub could have.", _known())
    return path


def checkpoint_identity(path: str, revision: str | None = None) -> str:
    """What decides the weights wherever they are stored: `sha256:` of a folder's files, or `hub/id@revision`.

    Raises CheckpointError as `find_checkpoint` does.
    """
    source = find_checkpoint(path)
    folder = Path(source)
    if not os.path.isdir(folder):
        return f"{source}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CONTENT for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def checkpoint_errors(path: str) -> Iterator[None]:
    """Turn what a loader raises for an absent or damaged checkpoint into a CheckpointError that names `path`."""
    from pickle import UnpicklingError

    try:
        yield
    except LeverplusError:
        raise
    except UnpicklingError as error:
        what = f"cannot load '{path}': its weights are a pickle that holds more than tensors, and is not run."
        raise CheckpointError(what, "Give a checkpoint with *.safetensors.") from error
    except Exception as error:  # a damaged file fails in any way that the loaders know
        raise CheckpointError(f"cannot load '{path}': {one_line(error, 300)}", _known()) from error


def load_pretrained(cls: Any, path: str, revision: str | None = None) -> Any:
    """`cls.from_pretrained` of a config, tokenizer or image processor of a checkpoint; code that it brings is not run.

    Raises CheckpointError when it cannot be loaded, at once where it is on a hub that cannot be reached.
    """
    with checkpoint_errors(path):
        return cls.from_pretrained(revision=revision or "main", **_source(path, revision))


def load_model(
    cls: Any,
    path: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "float32",
    device: str = "auto",
    attention: Attention | None = None,
    allow_unused: bool = False,
) -> Any:
    """`cls.from_pretrained` of a checkpoint as `find_checkpoint` finds it, in evaluation mode on `device`.

    Raises CheckpointError when it cannot be read, when a weight is missing or of another shape, or, unless
    `allow_unused`, when the checkpoint has weights that `cls` does not use. Weights that are pickled are read without
    running what a pickle may hold; where a hub cannot be reached, a checkpoint that is not on this machine is refused
    at once.
    """
    from logging import CRITICAL

    import torch
    from transformers.utils import logging

    settings = {} if attention is None else {"attn_implementation": attention}
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)  # a loading report would repeat what is raised below
    logging.disable_progress_bar()
    try:
        with checkpoint_errors(path):
            model, report = cls.from_pretrained(
                revision=revision,
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                output_loading_info=True,
                **_source(path, revision),
                **settings,
            )
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
    for problem in ("missing_keys", "mismatched_keys", *([] if allow_unused else ["unexpected_keys"])):
        if names := sorted(str(name) for name in report[problem]):
            raise CheckpointError(
                f"checkpoint '{path}' does not fit {cls.__name__}: {problem.replace('_', ' ')} {', '.join(names[:3])}"
                f"{' ...' if len(names) > 3 else ''}.",
                "Give a checkpoint of this architecture.",
            )
    return model.to(pick_device(device)).eval()


class Pretrained(BaseModel):
    """Mixin of a part that reads a checkpoint: the settings that name it, and what is loaded from it on first use."""

    model_config = ConfigDict(ignored_types=(cached_property,))

    packaged: ClassVar[str] = ""
    """A `path` that is no checkpoint's name: the part itself finds it in a package."""

    path: str
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    device: str = Field("auto", description="auto = the first GPU, or cpu")

    @cached_property
    def checkpoint(self) -> str:
        """What `from_pretrained` takes. Raises CheckpointError as `find_checkpoint`."""
        return find_checkpoint(self.path)

    @cached_property
    def checkpoint_content(self) -> str:
        """What decides the weights, for `identity`. Raises CheckpointError as `checkpoint_identity`."""
        return checkpoint_identity(self.path, self.revision)

    def check_machine(self) -> None:
        """Raises CheckpointError for a device that is not there, and for a checkpoint that is neither a folder nor
        on a hub that answers; nothing is loaded."""
        require_device(self.device)
        if self.path != self.packaged:
            _source(self.path, self.revision)

    @property
    def device_name(self) -> str:
        """The device as its maker calls it, "NVIDIA H200", or "cpu". Raises CheckpointError as `pick_device`."""
        return describe_device(pick_device(self.device))

    def pretrained(self, cls: Any) -> Any:
        """A config, tokenizer or image processor of the checkpoint. Raises CheckpointError when it cannot be loaded."""
        with checkpoint_errors(self.path):
            return cls.from_pretrained(revision=self.revision or "main", **_source(self.checkpoint, self.revision))

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        from transformers import AutoTokenizer

        return self.pretrained(AutoTokenizer)


def require_device(name: str) -> None:
    """Raises CheckpointError for a device that this machine does not have, in milliseconds and without torch."""
    kind, _, index = name.partition(":")
    if (kind == "cuda" and (index or "0").isdecimal() and int(index or 0) < _nvidia_gpus()) or name in ("auto", "cpu"):
        return
    if kind == "mps" and sys.platform == "darwin":
        return
    what = f"{_nvidia_gpus()} Nvidia GPUs" if kind == "cuda" else "auto, cpu, cuda, cuda:1, or mps on a Mac"
    raise CheckpointError(f"no device '{name}' on this machine: there are {what}.", "Set device to auto or cpu.")


@cache
def _nvidia_gpus() -> int:
    """The Nvidia GPUs that the driver shows to this process; 0 where torch is installed without them."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        if (
            metadata.version("torch").endswith("+cpu")
            or driver.cuInit(0)
            or driver.cuDeviceGetCount(ctypes.byref(count))
        ):
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


def pick_device(name: str) -> torch.device:
    """A device by its torch name; `auto` is the first GPU if there is one, else the CPU.

    Raises CheckpointError for a device that this machine does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"no device '{name}' on this machine: {error}.", "Set device to auto or cpu.") from error


def describe_device(device: torch.device) -> str:
    """A GPU's name as its maker gives it; of other devices torch's own."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def cache_folder() -> Path:
    """The user's folder for files that can be made again: LEVERPLUS_CACHE, else XDG_CACHE_HOME/leverplus, else
    ~/.cache/leverplus. It may not exist yet."""
    if own := os.environ.get("LEVERPLUS_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "leverplus"


def _source(path: str, revision: str | None) -> dict[str, Any]:
    """What every `from_pretrained` is given: where the checkpoint is, that no code of it is run, and whether to ask a
    hub. Raises CheckpointError for one that is on no disk where no hub can be asked."""
    source = find_checkpoint(path)
    found = {"pretrained_model_name_or_path": source, "trust_remote_code": False}
    if Path(source).is_dir():
        return found
    from huggingface_hub import try_to_load_from_cache

    if not (why := without_hub()):
        return found
    if not isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str):
        raise CheckpointError(
            f"'{path}' is no folder here and was not downloaded, and {why}.",
            f"Run `hf download {path}` where the network is and copy the folder, or name one that has config.json"
            f"{_packaged()}.",
        )
    return found | {"local_files_only": True}


def without_hub() -> str:
    """Why no hub can be asked, as the end of a sentence; '' where one can be."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return "" if _answers(constants.ENDPOINT) else f"{constants.ENDPOINT} does not answer"


@cache
def _answers(address: str) -> bool:
    """Whether a server answers in HUB_WAIT seconds, whatever it says; asked once in a process.

    The libraries try for a minute, with a line for each attempt.
    """
    answered: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_WAIT):
                answered.append(True)
        except urllib.error.HTTPError:
            answered.append(True)
        except urllib.error.URLError as error:
            # Certificates are the libraries' own matter.
            answered.append(isinstance(error.reason, ssl.SSLError))
        except (OSError, ValueError):
            answered.append(False)

    # Looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_WAIT)
    return bool(answered) and answered[0]


def _packaged_folder(entry: metadata.EntryPoint) -> Path:
    package, _, folder = entry.value.partition(":")
    spec = util.find_spec(package)  # locates the package without running it
    for place in (spec and spec.submodule_search_locations) or ():
        if os.path.isdir(found := Path(place) / folder):
            return found
    raise CheckpointError(
        f"the packaged checkpoint '{entry.name}' is not where its package says: {entry.value}.",
        f"Reinstall {entry.dist.name if entry.dist else package}.",
    )


def _known() -> str:
    return f"Give a complete checkpoint: a folder with config.json, a hub id in reach{_packaged()}."


def _packaged() -> str:
    names = sorted({entry.name for entry in metadata.entry_points(group=GROUP)})
    return f", or a packaged one: {', '.join(names)}" if names else ""
