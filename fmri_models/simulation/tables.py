"""From pictures to a simulated trial table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from ..data.schema import SIMULATED_TRUTH, SPLITS, TEST, TRAIN, UNLABELLED, UNLABELLED_RUNS, VALIDATION
from ..data.stimuli import pixels_of, read_stimuli
from ..data.table_terms import PICTURES_OF
from ..data.writer import TrialTableWriter
from ..errors import FmriModelsError
from ..names import one_line
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..progress import bar
from . import constants
from .brain import Experiment, Simulator, SimulatorConfig
from .energy import eye_picture
from .pools import Assignment, Counts, PicturePool, ScenePool

BUILTIN_SCENES = "builtin:scenes"
_BUILTIN = "builtin:"
_MOST_SUBJECTS = 99
_MOST_UNLABELLED = 100_000
# Betas are some units large and mostly noise, of which float16 loses less than a thousandth.
_BETAS = np.float16
_DESCRIPTION = (
    "Simulated, not measured: responses of a model of visual cortex to {what}. The simulator makes single-trial betas "
    "directly; no hemodynamic response and no GLM are simulated. Noise ceilings are the truth, for the mean of "
    "{repetitions} repetitions. Equations, constants and limits: docs/simulator.md of fmri_models."
)


def simulate(
    stimuli: str | Path,
    out: str | Path,
    num_subjects: int = 1,
    num_voxels: int = 3000,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    num_trials: int | None = None,
    repetitions: int = 3,
    image_size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
    signal_to_noise: float = 1.0,
    unlabelled: int = 0,
    unlabelled_kinds: Sequence[str] = tuple(UNLABELLED_RUNS),
    first_subject: int = 1,
) -> Path:
    """Shows pictures to simulated brains and writes what their voxels answer as a trial table.

    Args:
        stimuli: `builtin:scenes`, or a folder of pictures, a zip file of them, or a trial table.
        out: The folder to be written.
        num_subjects: How many brains; a subject is the same however many there are.
        num_voxels: Voxels of the first subject; the others have up to a tenth more or fewer.
        num_train: Training stimuli of each subject (1,000, or as many as there are). A tenth of them all subjects see.
        num_validation: Validation stimuli, the same for all subjects (100, or a tenth of the pictures).
        num_test: Test stimuli, the same for all subjects (100, or a tenth of the pictures).
        num_trials: Trials of each subject in all, instead of `num_train`.
        repetitions: How often each stimulus is shown, each time in another session.
        image_size: Crop pictures of a folder, zip file or table to their central square and resize it to this many
            pixels; as they are by default.
        seed: Draws the brains, the designs, the noise and the split.
        overwrite: Replace a folder that has content.
        progress: Show progress bars.
        report: Takes sentences that a person should read, such as of files that are no pictures.
        signal_to_noise: What each voxel's signal-to-noise ratio is multiplied with, see [`SimulatorConfig`].
        unlabelled: Further trials of each subject without a stimulus, in the part `unlabelled`; everything else is the
            same with and without them.
        unlabelled_kinds: Of what kinds they are, in equal shares: `rest` (noise alone) and `viewing` (responses to
            further pictures, which are in no table).
        first_subject: Number of the first brain: with 4, `num_subjects=1` is `subj04` alone, the same brain as among
            four, who sees the validation and test pictures that the others see.

    Returns:
        The folder.

    Raises:
        FmriModelsError: The stimuli can't be read or are too few, a number makes no sense, or `out` has content.
    """
    inputs = [] if str(stimuli).startswith(_BUILTIN) else [stimuli]
    check_output_folder(out, overwrite, TRIAL_TABLE, inputs)
    if not 1 <= num_subjects <= _MOST_SUBJECTS:
        raise FmriModelsError(f"{num_subjects} subjects were asked for; expected 1 to {_MOST_SUBJECTS}.")
    last_subject = first_subject + num_subjects - 1
    if first_subject < 1 or last_subject > _MOST_SUBJECTS:
        raise FmriModelsError(
            f"The subjects {first_subject} to {last_subject} were asked for; expected numbers from 1 to "
            f"{_MOST_SUBJECTS}."
        )
    subjects = range(first_subject - 1, last_subject)
    config = SimulatorConfig(num_voxels=num_voxels, repetitions=repetitions, seed=seed, signal_to_noise=signal_to_noise)
    counts = Counts(num_train, num_validation, num_test, num_trials, repetitions)
    pool = _pool(stimuli, counts, last_subject, image_size, seed)
    further = _Further.of(unlabelled, unlabelled_kinds, pool, last_subject)
    for sentence in pool.notes:
        report(sentence)
    # The pictures' folder may have any name.
    label = one_line(pool.label, 100)
    what = "scenes drawn by the package" if isinstance(pool, ScenePool) else f"the pictures of {label}"
    with (
        # Products are small: more threads cost more than they gain, and would make the bytes depend on their number.
        threadpool_limits(1, user_api="blas"),
        TrialTableWriter(
            out,
            name=f"simulated-{_name_of_pictures(pool, label)}",
            simulated=True,
            description=_description(what, config),
            license=pool.license,
            source="fmri-models simulate",
            overwrite=overwrite,
            created_by="fmri-models simulate",
            inputs=inputs,
        ) as writer,
    ):
        names = pool.assignment.all(subjects)
        memory = _StimulusMemory()
        records = bar(pool.records(names), "Preparing pictures", len(names), unit="picture", disable=not progress)
        writer.add_stimuli(memory.watch(records))
        shares = {}
        for subject in subjects:
            simulator = Simulator(config, subject)
            experiment = _Session(simulator, pool.assignment, memory).write(writer, progress)
            further.write(writer, simulator.name, experiment)
            shares[simulator.name] = experiment.budget.noise_shares()
        writer.extra["simulation"] = {**_about(config, shares), **further.about()}
        if pool.origin:
            writer.extra[PICTURES_OF] = pool.origin
    for sentence in writer.notes:
        report(sentence)
    return Path(out)


def _name_of_pictures(pool: ScenePool | PicturePool, label: str) -> str:
    """What a table is called after its pictures; those of a folder that is called so are not the built-in scenes."""
    is_taken = isinstance(pool, PicturePool) and label.lower().startswith(ScenePool.label)
    return f"pictures-{label}" if is_taken else label


def _description(what: str, config: SimulatorConfig) -> str:
    said = _DESCRIPTION.format(what=what, repetitions=config.repetitions)
    if config.signal_to_noise == 1:
        return said
    return f"{said} Signal-to-noise ratios of voxels are {config.signal_to_noise:g} times the usual ones."


def _pool(
    stimuli: str | Path, counts: Counts, num_subjects: int, image_size: int | None, seed: int
) -> ScenePool | PicturePool:
    if str(stimuli) == BUILTIN_SCENES:
        if image_size is not None:
            raise FmriModelsError("The built-in scenes are 64 x 64 pixels; a size can be given for pictures of others.")
        return ScenePool(counts, num_subjects, seed)
    if str(stimuli).startswith(_BUILTIN):
        raise FmriModelsError(f"There are no built-in stimuli {str(stimuli)!r}; expected {BUILTIN_SCENES}.")
    return PicturePool(read_stimuli(stimuli, size=image_size), counts, seed)


class _StimulusMemory:
    """What the brains need of each stimulus, kept while the table takes the rest."""

    def __init__(self) -> None:
        self._pictures: dict[str, np.ndarray] = {}
        self._factors: dict[str, dict | None] = {}

    def watch(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for record in records:
            self._pictures[record["stimulus_id"]] = eye_picture(pixels_of(record))
            self._factors[record["stimulus_id"]] = record.get("factors")
            yield record

    def pictures(self, names: list[str]) -> np.ndarray:
        return np.stack([self._pictures[name] for name in names])

    def factors(self, names: list[str]) -> list[dict | None]:
        return [self._factors[name] for name in names]


@dataclass(frozen=True)
class _Further:
    """Trials without a stimulus, the same pictures for all subjects.

    Args:
        counts: Kind ▶ trials of each subject.
        pictures: (N, H, W, C) those of the viewing trials.
        factors: N dicts, or None.
    """

    counts: dict[str, int]
    pictures: np.ndarray
    factors: list[dict | None]

    @classmethod
    def of(cls, count: int, kinds: Sequence[str], pool: ScenePool | PicturePool, num_subjects: int) -> "_Further":
        if not 0 <= count <= _MOST_UNLABELLED:
            raise FmriModelsError(f"{count} unlabelled trials were asked for; expected 0 to {_MOST_UNLABELLED}.")
        if not kinds or not set(kinds) <= set(UNLABELLED_RUNS):
            raise FmriModelsError(
                f"The kinds of unlabelled trials are {one_line(', '.join(kinds), 80) or 'none'}; expected some of "
                f"{', '.join(UNLABELLED_RUNS)}."
            )
        wanted = [kind for kind in UNLABELLED_RUNS if kind in kinds]
        shares = {kind: count // len(wanted) + (index < count % len(wanted)) for index, kind in enumerate(wanted)}
        counts = {kind: share for kind, share in shares.items() if share}
        records = list(pool.withheld(counts["viewing"], num_subjects)) if "viewing" in counts else []
        pictures = [eye_picture(pixels_of(record)) for record in records]
        return cls(
            counts, np.stack(pictures) if pictures else np.zeros(0), [record.get("factors") for record in records]
        )

    def write(self, writer: TrialTableWriter, subject: str, experiment: Experiment) -> None:
        for kind, count in self.counts.items():
            runs = experiment.rest(count) if kind == "rest" else experiment.viewing(self.pictures, self.factors)
            for session, run, betas in runs:
                length = len(betas)
                writer.add_trials(
                    subject,
                    UNLABELLED,
                    [""] * length,
                    betas.astype(_BETAS),
                    sessions=[session] * length,
                    runs=[run] * length,
                    repetitions=[0] * length,
                )

    def about(self) -> dict[str, object]:
        return {UNLABELLED: self.counts} if self.counts else {}


@dataclass(frozen=True)
class _Session:
    """One subject's part of the table."""

    simulator: Simulator
    assignment: Assignment
    memory: _StimulusMemory

    def write(self, writer: TrialTableWriter, progress: bool) -> Experiment:
        of_part = {
            TRAIN: self.assignment.train(self.simulator.subject),
            VALIDATION: self.assignment.validation,
            TEST: self.assignment.test,
        }
        names = [name for part in SPLITS for name in of_part[part]]
        groups = [part for part in SPLITS for _ in of_part[part]]
        experiment = self.simulator.experiment(self.memory.pictures(names), groups, self.memory.factors(names))
        self._write_voxels(writer, experiment)
        self._write_trials(writer, experiment, np.array(names), np.array(groups), progress)
        test = np.flatnonzero(np.array(groups) == TEST)
        writer.add_noise_free(self.simulator.name, [names[index] for index in test], experiment.noise_free(test))
        return experiment

    def _write_voxels(self, writer: TrialTableWriter, experiment: Experiment) -> None:
        anatomy, repetitions = self.simulator.anatomy, self.simulator.config.repetitions
        writer.add_voxels(
            self.simulator.name,
            anatomy.num_voxels,
            roi=anatomy.roi.tolist(),
            coordinates=anatomy.coordinates,
            ncsnr=experiment.ncsnr,
            noise_ceiling=experiment.noise_ceiling(repetitions),
            source=SIMULATED_TRUTH,
            repetitions=repetitions,
            space="simulated",
        )

    def _write_trials(
        self, writer: TrialTableWriter, experiment: Experiment, names: np.ndarray, groups: np.ndarray, progress: bool
    ) -> None:
        design = experiment.design
        shown = groups[design.stimulus]
        trials_of = {part: np.flatnonzero(shown == part) for part in SPLITS}
        # Trials come in the order of time and are written by part: those of the two small parts wait in memory.
        waiting = {part: np.empty((len(trials_of[part]), experiment.num_voxels), _BETAS) for part in (VALIDATION, TEST)}
        name = f"Simulating {self.simulator.name}"
        with bar(name=name, total=len(design), unit="trial", disable=not progress) as trials:
            train = _train_chunks(experiment, shown, trials_of, waiting, trials)
            for part in SPLITS:
                if not len(trials_of[part]):
                    continue
                of_part = trials_of[part]
                writer.add_trials(
                    self.simulator.name,
                    part,
                    stimulus_ids=names[design.stimulus[of_part]].tolist(),
                    fmri=train if part == TRAIN else waiting[part],
                    sessions=design.session[of_part].tolist(),
                    runs=design.run[of_part].tolist(),
                    trials=of_part.tolist(),
                    repetitions=design.repetition[of_part].tolist(),
                )


def _train_chunks(
    experiment: Experiment,
    shown: np.ndarray,
    trials_of: dict[str, np.ndarray],
    waiting: dict[str, np.ndarray],
    trials: tqdm,
) -> Iterator[np.ndarray]:
    """Yields the training trials of each run and puts the others where they wait."""
    for span, chunk in experiment.chunks():
        for part, place in waiting.items():
            chosen = np.flatnonzero(shown[span] == part)
            first = np.searchsorted(trials_of[part], span.start)
            place[first : first + len(chosen)] = chunk[chosen]
        trials.update(len(chunk))
        yield chunk[shown[span] == TRAIN].astype(_BETAS)


def _about(config: SimulatorConfig, shares: dict[str, dict[str, float]]) -> dict[str, object]:
    return {
        "version": constants.VERSION,
        "seed": config.seed,
        "betas": "made directly; no HRF and no GLM are simulated",
        "early_share": config.early_share,
        "repetitions": config.repetitions,
        "noise_shares": shares,
        "shared_noise_share": round(constants.SHARED_SHARE, 4),
        "signal_space_noise_share": constants.SIGNAL_SPACE_SHARE,
        "autocorrelation": {
            "shared": constants.SHARED_AUTOCORRELATION,
            "independent": constants.INDEPENDENT_AUTOCORRELATION,
        },
        "carry_over": constants.CARRY_OVER,
        "session_gain_std": constants.GAIN_SPREAD,
        "tuning_drift_radians": constants.DRIFT_RADIANS,
        **({} if config.signal_to_noise == 1 else {"signal_to_noise": config.signal_to_noise}),
    }
