"""What the tests of training by gradient share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fmri_models.training import precision
from fmri_models.training.recipe import Recipe
from tests.small_table import write_small_table
from tests.training.small_recipes import recipes_in, small_method


@pytest.fixture(autouse=True)
def computes_in_bfloat16() -> Iterator[None]:
    """A processor without instructions for bfloat16 would train in float32, and mixed precision be untested."""
    # Not the fixture `monkeypatch`, which tests undo in their midst.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "has_bfloat16_instructions", lambda: True)
        yield


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_table(tmp_path_factory.mktemp("table") / "data")


@pytest.fixture
def make_recipe(small_data: Path, tmp_path: Path) -> Iterator[Callable[..., Recipe]]:
    """A recipe of the small method that writes into `tmp_path / out`, with overrides."""
    with small_method():
        yield recipes_in(tmp_path, small_data)
