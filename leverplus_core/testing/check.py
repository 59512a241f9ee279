"""The check of whatever kind a part is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from leverplus_core.pipeline.stage import Stage
from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Model, Part, Reward, Sampler
from leverplus_core.plugins.format_contracts import Exporter, Importer
from leverplus_core.records import Image
from leverplus_core.selector.base import BaselineSelector, TrainableSelector
from leverplus_core.testing.candidates import check_balancer, check_reward, check_sampler
from leverplus_core.testing.datasets import check_dataset
from leverplus_core.testing.files import check_exporter, check_importer
from leverplus_core.testing.models import check_encoder, check_model
from leverplus_core.testing.parts import check_part
from leverplus_core.testing.records import tiny_pictures
from leverplus_core.testing.selectors import check_baseline, check_selector
from leverplus_core.testing.stages import check_stage
from leverplus_core.testing.trainers import check_trainer
from leverplus_core.training.base import Trainer


def check(
    part: Part, *, images: Sequence[Image] | None = None, model: Model | None = None, source: Path | None = None
) -> None:
    """Hold a part to the contract of its kind.

    A model and an encoder are tried on `images`, by default four pictures of one color each; an encoder that needs one
    is given `model`, an importer reads the file `source`. Raises AssertionError with the obligation that is broken, or
    that lacks something to be tried on.
    """
    match part:
        case Model() | Encoder():
            with TemporaryDirectory() as folder:
                pictures = tiny_pictures(Path(folder), count=4) if images is None else images
                if isinstance(part, Model):
                    check_model(part, pictures)
                else:
                    check_encoder(part, pictures, model)
        case Sampler():
            check_sampler(part)
        case Balancer():
            check_balancer(part)
        case Reward():
            check_reward(part)
        case TrainableSelector():
            check_selector(part)
        case BaselineSelector():
            check_baseline(part)
        case Trainer():
            check_trainer(part)
        case Dataset():
            check_dataset(part)
        case Importer():
            assert source is not None, "give check() a file of the importer's format: source=..."
            check_importer(part, source)
        case Exporter():
            check_exporter(part)
        case Stage():
            check_stage(part)
        case _:
            check_part(part)
