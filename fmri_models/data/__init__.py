"""Trial tables: what was shown, what the voxels answered, and which trials may be learned from.

- Reading: `table` and what it gives (`table_trials`, `table_stimuli`, `table_voxels`), through the door of `parquet`;
  trials that are `windows` of a recording, and stimuli that are `clips`.
- Writing: `writer`, of the files of stimuli (`stimulus_writer`) and of each subject (`subject_writer`, `table_files`).
- Splits: `splits` draws them over `split_trials`; `split_files` reads, makes and checks their rows.
- Where tables come from: `arrays` (betas of one's own), `stimuli` and `stimulus_index` (pictures), `hub`.
- What is wrong with a table: `validation`, `training_checks`, `near_copies`.
- What models learn from: `table_processor`, `processed`, `targets`, then `loading` and `batches`, or `closed_form`.

The names below are imported with first use, so that `import fmri_models.data` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clips import Clip
    from .table import TrialTable
    from .table_stimuli import Stimuli
    from .table_trials import Trials
    from .table_voxels import Voxels
    from .windows import Windows
    from .writer import TrialTableWriter

__all__ = ["Clip", "Stimuli", "TrialTable", "TrialTableWriter", "Trials", "Voxels", "Windows"]

_MODULES = {
    "Clip": "clips",
    "Stimuli": "table_stimuli",
    "TrialTable": "table",
    "TrialTableWriter": "writer",
    "Trials": "table_trials",
    "Voxels": "table_voxels",
    "Windows": "windows",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
