"""What a report says of the data, the model and the trials, beside the scores."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..data.schema import TRAIN, VALIDATION, labelled_parts
from ..data.table import TrialTable
from ..names import as_sentence, listed
from ..pipeline_fmri import FmriToImagePipeline
from ..scenes import factor_combinations_seen
from ..training_record import TrainingRecord
from .drawn_rows import SubjectRows
from .held_out import HeldOut
from .rows import ROWS
from .seeded_drawing import SeededDrawing


def described_data(
    table: TrialTable, record: TrainingRecord, tested: Sequence[SubjectRows], factors: Sequence[dict[str, str]] | None
) -> dict[str, Any]:
    """What was measured on, for report.json.

    Args:
        table: The trial table.
        record: Which split, and what was learned from.
        tested: What was evaluated of it.
        factors: Of the scene of each item; None where they are not known.
    """
    subjects = list(dict.fromkeys(each.subject for each in tested))
    ceilings = {name: table.voxels(name) for name in subjects}
    values = [np.asarray(v.noise_ceiling) for v in ceilings.values() if v.noise_ceiling is not None]
    described: dict[str, Any] = {
        "name": table.name,
        "fingerprint": table.fingerprint,
        "simulated": table.simulated,
        "mean_noise_ceiling": float(np.nanmean(np.concatenate(values))) if values else None,
        "noise_ceiling_source": sorted({v.source for v in ceilings.values() if v.source}),
        "noise_ceiling_repetitions": sorted({v.repetitions for v in ceilings.values() if v.repetitions}),
        "num_voxels": {name: table.num_voxels(name) for name in subjects},
        "split": record.split,
        "split_how": table.split_how(record.split),
        "folds": sorted({each.fold for each in tested}),
        "train_parts": record.train_parts,
        "test_items": sum(len(each.stimulus_ids) // each.samples for each in tested),
        "test_trials": sum(len(each.held_out.trials) for each in tested),
        "repeats_stimuli": table.repeats_stimuli(record.split),
        "test_repetitions": _range([n for each in tested for n in _counts(each.held_out.trials.stimulus_ids)]),
    }
    if table.modality != "fmri":
        described["modality"] = table.modality
    if table.windows is not None:
        described["windows"] = table.windows.sentence()
    if table.cautions:
        described["cautions"] = table.cautions
    if record.method != "unknown":
        described["training"] = {name: _learned_from(table, record, name, tested) for name in subjects}
    if factors is not None:
        parts = labelled_parts(record.train_parts)
        trained = table.trials(subjects[0], parts, record.split, record.fold).stimulus_ids
        seen = [scene or {} for scene in table.stimuli.factors(sorted(set(trained.tolist())))]
        described["test_factor_combinations_seen_in_training"] = factor_combinations_seen(seen, factors)
    return described


def _counts(stimulus_ids: np.ndarray) -> list[int]:
    return np.unique(stimulus_ids, return_counts=True)[1].tolist()


def _range(values: Sequence[int]) -> list[int]:
    return [min(values), max(values)]


def _learned_from(
    table: TrialTable, record: TrainingRecord, subject: str, tested: Sequence[SubjectRows]
) -> dict[str, Any]:
    """How many trials and sessions of a subject were learned from, in the largest fold, and hours where known."""
    parts = labelled_parts(record.train_parts)
    folds = sorted({each.fold for each in tested if each.subject == subject})
    trials = max((table.trials(subject, parts, record.split, fold) for fold in folds), key=len)
    seconds = table.metadata.get("seconds_per_trial")
    hours = {} if seconds is None else {"hours": len(trials) * seconds / 3600}
    return {"trials": len(trials), "sessions": len(np.unique(trials.sessions)), **hours}


def imagery_learned(table: TrialTable, record: TrainingRecord, tested: Sequence[SubjectRows]) -> int:
    """How many imagery trials were learned from."""
    parts = labelled_parts(record.train_parts)
    pairs = {(each.subject, each.fold) for each in tested}
    return sum(int(table.trials(name, parts, record.split, fold).imagery.sum()) for name, fold in pairs)


def notes_on_imagery(tested: Sequence[SubjectRows]) -> list[str]:
    """A sentence where trials of pictures seen and imagined are measured together."""
    marks = np.concatenate([each.held_out.trials.imagery for each in tested])
    if not marks.any() or marks.all():
        return []
    return [
        f"{int(marks.sum())} of {len(marks)} test trials are of imagery and are measured together with those of "
        "pictures that were seen; the protocols imagery and kamitani tell them apart."
    ]


def notes_on_sessions(tested: Sequence[SubjectRows], exchange_within: str | None) -> list[str]:
    """A sentence where each test stimulus is of one session alone, and p does not allow for what that has in common."""
    if exchange_within is not None:
        return []
    for each in tested:
        trials = each.held_out.trials
        pairs = set(zip(trials.stimulus_ids.tolist(), trials.sessions.tolist(), strict=True))
        stimuli, sessions = ({pair[place] for pair in pairs} for place in (0, 1))
        # Where each session has one stimulus there is nothing that could be exchanged inside it.
        if len(pairs) > len(stimuli) or not 1 < len(sessions) < len(stimuli):
            return []
    return [
        "Each test stimulus was shown in one session alone: where pictures of a session are alike, p may be small "
        "because responses of a session are, too; --permute-within session allows for that."
    ]


def described_model(
    name: str,
    pipeline: FmriToImagePipeline,
    record: TrainingRecord,
    drawing: SeededDrawing,
    held_out: Sequence[HeldOut] = (),
) -> dict[str, Any]:
    """What was measured, for report.json.

    Args:
        name: Of its folder, or that on the Hub.
        pipeline: What was evaluated.
        record: How it was trained.
        drawing: How it has drawn.
        held_out: The trials behind the items.
    """
    return {
        "path": name,
        "method": record.method,
        "subjects": pipeline.processor.subject_names,
        "image_generator": type(pipeline.image_generator).__name__,
        "repetitions_trained_on": record.repetitions,
        "training_seconds": record.seconds,
        "settings": {
            **pipeline.settings_used(drawing.settings),
            "seed": drawing.seed,
            "precision": drawing.precision,
        },
        "transductive": pipeline.processor.is_transductive
        or pipeline.brain_model.is_transductive
        or any(each.learned_fmri for each in held_out),
        **({"image_generator_was_trained": True} if pipeline.has_trained_generator else {}),
    }


def notes_on_what_was_measured(
    table: TrialTable, record: TrainingRecord, pipeline: FmriToImagePipeline, rows: Collection[str]
) -> list[str]:
    """What has to be known of table, generator, model and processor to read the scores of the rows that there are."""
    notes = []
    if table.simulated:
        notes.append("The brain activity is simulated; nothing here says how well a real brain can be read.")
    if pipeline.image_generator.limits is not None:
        notes.append(as_sentence(pipeline.image_generator.limits))
    if not pipeline.image_generator.generates_from_embeddings:
        embeds = pipeline.brain_model.config.image_embedding_space is not None
        notes.append(
            "The image generator draws from latents alone: brain is the decoded low-level picture"
            + (", and the embeddings serve retrieval." if embeds else ".")
        )
    if pipeline.brain_model.config.model_type == "fmri-linear":
        notes.append("The evaluated model is the linear method, so the rows brain and ridge are the same.")
    elif "permuted_training" in rows and pipeline.has_trained_generator:
        notes.append("permuted_training is ridge regression, whatever the evaluated method is.")
    elif "permuted_training" in rows and "permuted_training_own" not in rows:
        notes.append(
            "permuted_training is ridge regression, whatever the evaluated method is; --refit-permuted adds the method "
            "itself, trained on exchanged pairs."
        )
    if pipeline.processor.is_transductive:
        notes.append(
            "Unseen sessions are standardised with statistics of the test trials: the results are transductive."
        )
    if pipeline.brain_model.is_transductive:
        notes.append(
            "Predictions are standardised with mean and spread of all predictions of the test set: the results are "
            "transductive, and the model decodes no single pattern."
        )
    if table.repeats_stimuli(record.split):
        notes.append(table.repeats_stimuli(record.split))
    if table.modality != "fmri":
        notes.append(f"The responses are {table.modality.upper()}, not fMRI.")
    if table.windows is not None:
        notes.append(table.windows.sentence())
    return [*notes, *table.cautions]


def reasons_of_missing_rows(tested: Sequence[SubjectRows], rows: Collection[str]) -> dict[str, str]:
    """Name of a row that is not in the report, and that somebody would look for ▶ why a subject or fold has none."""
    reasons = {name: next((each.missing[name] for each in tested if each.missing.get(name)), "") for name in ROWS}
    return {name: reason for name, reason in reasons.items() if reason and name not in rows}


def notes_on_unused_trials(table: TrialTable, record: TrainingRecord, tested: Sequence[SubjectRows]) -> list[str]:
    """A sentence on the trials that are neither learned from nor tested."""
    if record.method == "unknown":
        return []
    unused = [part for part in (TRAIN, VALIDATION) if part not in record.train_parts]
    trials = [table.trials(each.subject, unused, record.split, each.fold) for each in tested] if unused else []
    count = sum(len(each) for each in trials)
    if count == 0:
        return ["All training and validation trials of the split were learned from."]
    stimuli = len({stimulus for each in trials for stimulus in each.stimulus_ids.tolist()})
    what = f"of {stimuli} stimuli"
    if table.repeats_stimuli(record.split):
        runs = {run for each in trials for run in zip(each.sessions.tolist(), each.runs.tolist(), strict=True)}
        what = listed((f"session {session} run {run}" for session, run in sorted(runs)), 10)
    folds = len({each.fold for each in tested})
    of_folds = f" in {folds} folds" if folds > 1 else ""
    return [f"Besides the test trials, {count} {' and '.join(unused)} trials{of_folds} were not learned from ({what})."]
