"""What the tests of training by gradient share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fmri_models.registry import METHODS, register_method
from fmri_models.training import precision
from fmri_models.training.recipe import Recipe, load_recipe
from tests.small_table import write_small_table
from tests.training.small_method import METHOD

RECIPE = """
method: small
generator: pixels
processor: {statistics: session}
stages:
  - name: brain
    training: {steps: 40, batch_size: 16, learning_rate: 1e-2, checkpoint_every: 10, validate_every: 10}
"""


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


@contextmanager
def small_method() -> Iterator[None]:
    """The small method is registered, for a while: other tests go through all methods that there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS, "registered", {})
        register_method(METHOD)
        yield


def recipes_in(folder: Path, data: Path) -> Callable[..., Recipe]:
    """Makes recipes of the small method, with overrides, that write below a folder."""
    path = folder / "small.yaml"
    path.write_text(RECIPE)

    def make(out: str = "out", *overrides: str) -> Recipe:
        return load_recipe(str(path), [f"data={data}", f"out={folder / out}", *overrides])

    return make


@pytest.fixture
def make_recipe(small_data: Path, tmp_path: Path) -> Iterator[Callable[..., Recipe]]:
    """A recipe of the small method that writes into `tmp_path / out`, with overrides."""
    with small_method():
        yield recipes_in(tmp_path, small_data)
