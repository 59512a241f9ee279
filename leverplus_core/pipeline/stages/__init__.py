"""The stages in the order in which they run: the only place that knows it.

From this list follow the order of a run, fingerprints, provenance, `run --until`, the rows of a plan, and the order of
methods in reports. Trainers of plugins and stages of a recipe's `stages` are inserted by `RunContext`.
"""

from __future__ import annotations

from leverplus_core.pipeline.stage import Stage
from leverplus_core.pipeline.stages.balance import Balance
from leverplus_core.pipeline.stages.beam_search import BeamSearch
from leverplus_core.pipeline.stages.choose_baseline import ChooseBaseline
from leverplus_core.pipeline.stages.encode import Encode
from leverplus_core.pipeline.stages.evaluate import Evaluate
from leverplus_core.pipeline.stages.mine import Mine
from leverplus_core.pipeline.stages.online import Online
from leverplus_core.pipeline.stages.pool import Pool
from leverplus_core.pipeline.stages.propose import Propose
from leverplus_core.pipeline.stages.train import Train

PIPELINE: tuple[Stage, ...] = (
    Encode(),
    Pool(),
    BeamSearch(),
    Train(name="sft"),
    Propose(),
    Mine(),
    Balance(),
    Train(name="rce"),
    Train(name="grpo"),
    Train(name="mrt"),
    Online(),
    ChooseBaseline(),
    Evaluate(),
)
STAGE_NAMES = tuple(stage.name for stage in PIPELINE)
