"""Which subjects of a table a recipe is trained on."""

import re
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.training.building import recipe_subjects
from fmri_models.training.recipe import Recipe, Stage


@pytest.fixture
def table(tmp_path: Path) -> TrialTable:
    with TrialTableWriter(tmp_path / "table", name="table") as writer:
        writer.add_voxels("anna", 3)
        writer.add_stimuli([{"stimulus_id": "a", "image": np.zeros((4, 4, 3), dtype=np.uint8)}])
        writer.add_trials("anna", "train", ["a"], np.ones((1, 3), dtype=np.float32))
    return TrialTable.open(tmp_path / "table")


def test_a_subject_that_the_recipe_names_and_the_table_lacks_ends_with_how_to_choose_others(table):
    recipe = Recipe(method="linear", subjects=["subj77"], stages=[Stage("ridge")])
    found = "'subj77'; it has anna. The recipe names others: choose of these with subjects=[…]."
    with pytest.raises(FmriModelsError, match=re.escape(found)):
        recipe_subjects(recipe, table)
    assert recipe_subjects(Recipe(method="linear", stages=[Stage("ridge")]), table) == ["anna"]
