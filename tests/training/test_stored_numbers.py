"""What short trainings come to, compared with what they came to when it was stored."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table
from tests.stored_numbers import check_numbers

# The steps of AdamW are as long for a gradient that is hardly more than rounding as for any other.
TOLERANCE = 0.02
# Sizes and lengths for seconds; everything else is as the recipe has it, but for the rounding of bfloat16.
MINDEYE = [
    "model.hidden_size=24", "model.projector_size=16", "model.token_components=12", "model.prior_num_layers=1",
    "model.prior_num_attention_heads=2", "model.prior_attention_head_dim=6", "model.prior_num_inference_steps=5",
    "model.low_level_hidden_size=16", "model.low_level_block_out_channels=[4,8]", "model.low_level_norm_num_groups=2",
    *(
        f"stages.{stage}.training.{name}={value}"
        for stage in range(3)
        for name, value in {"epochs": 2, "batch_size": 24, "learning_rate": 5e-4, "mixed_precision": "no"}.items()
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_table(tmp_path_factory.mktemp("numbers") / "table")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "changes"), [("linear", []), ("mindeye", MINDEYE)])
def test_a_training_comes_to_the_numbers_that_were_stored(method, changes, table, tmp_path):
    places = [f"data={table}", f"out={tmp_path / 'pipeline'}", "generator=pixels", "seed=3"]
    train(load_recipe(method, [*places, *changes]))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    weights = {f"weights {name}": values for name, values in pipeline.brain_model.state_dict().items()}
    check_numbers(f"training/{method}", weights | measured(pipeline) | drawn(pipeline, table), TOLERANCE)


def measured(pipeline: Any) -> dict[str, torch.Tensor]:
    """What the stages' last validations measured, but for shares of right answers, which are not continuous."""
    results = {stage["stage"]: stage["result"] for stage in pipeline.training_record.stages}
    last = {name: result["validations"][-1] for name, result in results.items() if "validations" in result}
    return {
        f"{stage} {name}": torch.tensor(float(value))
        for stage, values in last.items()
        for name, value in values.items()
        if "top1" not in name
    }


def drawn(pipeline: Any, table: Path) -> dict[str, torch.Tensor]:
    """Low-level pictures of test trials of one subject; what a prior samples magnifies rounding beyond comparison."""
    trials = TrialTable.open(table).trials("subj02", "test")
    generator = [torch.Generator().manual_seed(number) for number in range(4)]
    output = pipeline(
        trials.fmri()[:4], subject="subj02", session=trials.sessions[:4], generator=generator, output_type="pt"
    )
    return {"low_level_images": output.low_level_images}
