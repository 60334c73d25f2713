"""What the modules in `evaluate_metrics/` share, which `evaluate.load(metric_module(name))` of Hugging Face loads.

`evaluate` copies all that it is given through Arrow into Python lists, which for pictures takes a hundred times as long
as the metric itself. Metrics of pictures therefore take paths of files here, and the functions in
`fmri_models.evaluation` remain the way for arrays.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from ..data.pictures import read_picture
from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from ..shipped import shipped_folder

_FOLDER = "evaluate_metrics"


def metric_module(name: str) -> str:
    """The folder that `evaluate.load` takes for a metric, such as `pixcorr`.

    Raises:
        FmriModelsError: There is none of that name.
    """
    folder = shipped_folder(_FOLDER)
    names = sorted(path.stem for path in folder.glob("*/*.py") if path.stem == path.parent.name)
    if name not in names:
        raise FmriModelsError(
            f"There is no metric {one_line(repr(name), 80)} for evaluate.load; there are {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )
    return str(folder / name)


class LoadableMetric(evaluate.Metric):
    """A function of this package with the arguments of `evaluate`: predictions and references, and its own options.

    Attributes:
        function: Of references and predictions, in this order.
        predictions: What one is.
        references: What one is.
        inputs: Both in words.
    """

    function: ClassVar[Callable[..., Any]]
    predictions: ClassVar[Any]
    references: ClassVar[Any]
    inputs: ClassVar[str]

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=self.function.__doc__ or "",
            citation="",
            inputs_description=self.inputs,
            features=datasets.Features({"predictions": self.predictions, "references": self.references}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any], **options: Any) -> dict[str, Any]:
        found = self.scores(list(predictions), list(references), **options)
        return found if isinstance(found, dict) else {type(self).function.__name__: as_plain(found)}

    @abstractmethod
    def scores(self, predictions: list[Any], references: list[Any], **options: Any) -> Any:
        """Calls the function with what it takes."""


class OfPictures(LoadableMetric):
    """Of files of pictures, all of one size."""

    predictions = datasets.Value("string")
    references = datasets.Value("string")
    inputs = "Paths of reconstructions (predictions) and of the pictures that were shown (references), of one size."

    def scores(self, predictions: list[str], references: list[str], **options: Any) -> Any:
        truth, recon = read_pictures(references), read_pictures(predictions)
        return type(self).function(truth, recon, **options)


class OfVectors(LoadableMetric):
    """Of features or embeddings, a list of numbers each."""

    predictions = datasets.Sequence(datasets.Value("float64"))
    references = datasets.Sequence(datasets.Value("float64"))
    inputs = "Features of reconstructions (predictions) and of the pictures that were shown (references)."

    def scores(self, predictions: list[Any], references: list[Any], **options: Any) -> Any:
        return type(self).function(as_vectors(references), as_vectors(predictions), **options)


class OfClasses(LoadableMetric):
    """Of features or logits, and of a class that is right."""

    predictions = datasets.Sequence(datasets.Value("float64"))
    references = datasets.Value("int64")
    inputs = "Logits or features of reconstructions (predictions) and the class that is right (references)."

    def scores(self, predictions: list[Any], references: list[int], **options: Any) -> Any:
        return type(self).function(as_vectors(predictions), torch.tensor(references), **options)


class OfTexts(LoadableMetric):
    """Of captions, with one or more references each."""

    predictions = datasets.Value("string")
    references = datasets.Sequence(datasets.Value("string"))
    inputs = "Captions (predictions) and lists of captions of the pictures that were shown (references)."

    def scores(self, predictions: list[str], references: list[Any], **options: Any) -> Any:
        return type(self).function(predictions, [list(each) for each in references], **options)


def read_pictures(paths: Sequence[str]) -> Tensor:
    """(N, C, H, W) float32 in [0, 1]; in colour if any of them is.

    Raises:
        FmriModelsError: A file can't be read, or has another size than the first.
    """
    pictures = [read_picture(Path(path), Path(path).name) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            raise FmriModelsError(
                f"The picture {one_line(path)} has {picture.shape[1]}x{picture.shape[0]} pixels and the first one "
                f"{pictures[0].shape[1]}x{pictures[0].shape[0]}; resize them first."
            )
    channels = max(picture.shape[2] for picture in pictures)
    alike = [np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures]
    return torch.from_numpy(np.stack(alike)).permute(0, 3, 1, 2).float() / 255


def as_vectors(values: Sequence[Any]) -> Tensor:
    """(N, F) float64.

    Raises:
        FmriModelsError: They have different lengths.
    """
    lengths = {len(each) for each in values}
    if len(lengths) != 1:
        raise FmriModelsError(f"The vectors have {sorted(lengths)[:5]} values; expected one length.")
    return torch.from_numpy(np.asarray([np.asarray(each, dtype=np.float64) for each in values]))


def as_plain(found: Any) -> Any:
    """A float, or a list of them with `reduction="none"`."""
    return found.tolist() if isinstance(found, Tensor) else float(found)
