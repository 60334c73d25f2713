"""The examples that the package carries: small trained pipelines, and test trials to try them on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FmriModelsError
from .names import did_you_mean, listed, one_line
from .registry import PRETRAINED

if TYPE_CHECKING:
    from .data.table_trials import Trials
    from .pipeline_fmri import FmriToImagePipeline

EXAMPLES_FOLDER = Path(__file__).parent / "assets" / "examples"
TRIALS_FOLDER = "trials"
_SUBJECT = "subj01"


def load_example(name: str = "mindeye-scenes", **kwargs: Any) -> "tuple[FmriToImagePipeline, Trials]":
    """A small trained pipeline, and the 24 test trials of simulated brain activity that it was measured on.

    ```python
    pipeline, trials = load_example("mindeye-scenes")
    pictures = pipeline(trials.fmri(), subject=trials.subject, session=trials.sessions).images
    shown = trials.table.stimuli.images(trials.stimulus_ids)
    ```

    Nothing is fetched. How the examples were made: `scripts/train_examples.py`; what they give: the report in each
    one's folder.

    Args:
        name: `"mindeye-scenes"` or `"linear-scenes"`.
        **kwargs: Those of [`FmriToImagePipeline.from_pretrained`], such as `dtype`. The weights are stored in half
            precision; the pipeline computes in float32 where nothing is said.

    Returns:
        The pipeline, and the trials: `trials.fmri()` are (24, voxels) float32 betas in percent signal change.

    Raises:
        FmriModelsError: There is no example of that name; the message names those that there are.
    """
    from .data.table import TrialTable
    from .pipeline_fmri import FmriToImagePipeline

    pipeline = FmriToImagePipeline.from_pretrained(_folder(name), **kwargs)
    return pipeline, TrialTable.open(EXAMPLES_FOLDER / TRIALS_FOLDER).trials(_SUBJECT, "test")


def example_names() -> list[str]:
    """Names of the examples, sorted."""
    carried = [record for record in PRETRAINED.own() if record.folder]
    return sorted(record.name for record in carried if record.path().parent == EXAMPLES_FOLDER)


def _folder(name: str) -> Path:
    names = example_names()
    if name not in names:
        raise FmriModelsError(
            f"There is no example {one_line(repr(name), 80)}; those there are: {listed(names)}."
            f"{did_you_mean(str(name), names)}"
        )
    return EXAMPLES_FOLDER / name
