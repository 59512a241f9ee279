"""For plugin authors: the obligations of the contracts as checks, and a tiny set of records to try a part on.

    from leverplus_core.testing import check

    def test_my_reward_keeps_the_contract() -> None:
        check(MyReward())

A check raises AssertionError with the obligation that the part breaks. `check` finds the one of the part's kind; those
of the kinds, `check_reward` and so on, take what a kind needs beside the part. In a project with pytest, the fixture
`leverplus_part` is each part that a distribution registers (`leverplus_core.pytest_plugin`).
"""

from leverplus_core.testing.candidates import check_balancer as check_balancer
from leverplus_core.testing.candidates import check_reward as check_reward
from leverplus_core.testing.candidates import check_sampler as check_sampler
from leverplus_core.testing.check import check as check
from leverplus_core.testing.datasets import check_dataset as check_dataset
from leverplus_core.testing.files import check_exporter as check_exporter
from leverplus_core.testing.files import check_importer as check_importer
from leverplus_core.testing.listeners import check_listener as check_listener
from leverplus_core.testing.models import check_encoder as check_encoder
from leverplus_core.testing.models import check_model as check_model
from leverplus_core.testing.parts import check_part as check_part
from leverplus_core.testing.records import tiny_bank as tiny_bank
from leverplus_core.testing.records import tiny_demonstrations as tiny_demonstrations
from leverplus_core.testing.records import tiny_groups as tiny_groups
from leverplus_core.testing.records import tiny_pictures as tiny_pictures
from leverplus_core.testing.records import tiny_questions as tiny_questions
from leverplus_core.testing.selectors import check_baseline as check_baseline
from leverplus_core.testing.selectors import check_selector as check_selector
from leverplus_core.testing.stages import check_stage as check_stage
from leverplus_core.testing.trainers import check_trainer as check_trainer
