"""Recipes of the small method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fmri_models.registry import METHODS, register_method
from fmri_models.training.recipe import Recipe, load_recipe
from tests.training.small_method import METHOD

RECIPE = """
method: small
generator: pixels
processor: {statistics: session}
stages:
  - name: brain
    training: {steps: 40, batch_size: 16, learning_rate: 1e-2, checkpoint_every: 10, validate_every: 10}
"""


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
