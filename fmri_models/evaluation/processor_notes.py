"""What a report says of the processor: sessions without statistics of their own, and what voxels were chosen by."""

from ..data import schema
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..names import listed
from ..processing_fmri import FmriProcessor


def processor_notes(processor: FmriProcessor, table: TrialTable, test: Trials) -> list[str]:
    """Sentences on how the trials of a subject were standardised, and its voxels chosen, where that is unusual.

    Args:
        processor: The evaluated pipeline's.
        table: The trial table.
        test: The subject's test trials.
    """
    name = test.subject
    notes = []
    if pooled := processor.pooled_sessions(name):
        notes.append(
            f"{name} has sessions with fewer than {processor.min_session_trials} training trials, or in effect fewer "
            f"stimuli ({listed(pooled, 10)}); they are standardised with the pooled statistics of all its "
            "training trials."
        )
    unseen = processor.unseen_sessions(name, processor.groups(test.sessions, test.runs))
    if unseen and processor.unseen_session == "pooled":
        notes.append(
            f"{name} has test trials in sessions without training trials ({listed(unseen, 10)}); they are "
            "standardised with the pooled statistics of all its training trials."
        )
    if processor.num_best_voxels is None and processor.min_noise_ceiling is None:
        return notes
    sources = processor.noise_ceiling_source or table.voxels(name).source
    if schema.RELEASE in sources:
        notes.append(
            f"The voxels of {name} were chosen by the noise ceilings of a release, which nobody has computed without "
            "the test trials: they may know more than training trials tell."
        )
    if schema.SIMULATED_TRUTH in sources:
        notes.append(f"The voxels of {name} were chosen by the simulator's true noise ceilings, which no data tell.")
    if not processor.noise_ceiling_source and sources == schema.TRAINING_REPETITIONS:
        notes.append(
            f"The voxels of {name} were chosen by noise ceilings from training trials of the split "
            f"{schema.DEFAULT_SPLIT!r}, which may be test trials of another split."
        )
    return notes
