"""Evaluation of decoded guides: beside pictures, or alone where a pipeline has no image generator."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from .. import progress
from ..data.schema import TEST
from ..data.split_files import part_fingerprints
from ..data.table import TrialTable
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..guides import GuideSet
from ..names import one_line
from ..training_record import TrainingRecord
from .controls import exchange_stimuli
from .drawn_rows import SubjectRows
from .evaluated_pipelines import EvaluatedPipeline, tested_stimuli
from .evaluated_subject import EvaluatedSubject
from .guide_report import GUIDES, guide_scores, guides_content
from .guide_scores import GuidesOfSubject, score_guides
from .held_out import held_out_notes, subjects_in_table
from .looks import looks_at_folds, looks_sentence, name_of_look, record_look
from .processor_notes import processor_notes
from .report import Report
from .report_description import described_data
from .report_folder import write_report
from .seeded_drawing import SeededDrawing

if TYPE_CHECKING:
    from .evaluate import Evaluation

_NO_PICTURES = (
    "The pipeline has no image generator: what it decodes is compared with the layers of the shown pictures, and there "
    "are no pictures, references of a generator or ridge beside it."
)
_NO_REFIT = (
    "Layers are not decoded by a refitted model; the exchanged patterns and the re-paired items are the controls."
)


def guides_of(of: EvaluatedSubject, weights: Mapping[str, str]) -> GuidesOfSubject:
    """What the guides of one subject score, of its patterns and of exchanged ones.

    Args:
        of: The subject's test items.
        weights: Network ▶ place of its weights, for layers that are not kept.

    Raises:
        FmriModelsError: There are no two different pictures, or weights are needed and not there.
    """
    model, ids = of.pipeline.brain_model, of.stimulus_ids[: of.responses]
    hashes = of.table.stimuli.content_hashes(ids)
    shown = [digest or name for digest, name in zip(hashes, ids, strict=True)]
    if len(set(shown)) < 2:
        raise FmriModelsError(
            f"{of.subject} is tested with one picture alone, and layers are identified among those of several; "
            "evaluate with more test pictures."
        )
    features = of.features[: of.responses]
    exchanged = features[torch.from_numpy(exchange_stimuli(shown, of.drawn_by.seed))]
    patterns = {"brain": of.model_inputs(model, features), "shuffled_brain": of.model_inputs(model, exchanged)}
    training_ids = [name for name in dict.fromkeys(of.training_trials.stimulus_ids.tolist()) if name]
    with progress.phase(f"Comparing decoded layers of {of.subject}"):
        return score_guides(
            model,
            of.table,
            GuideSet.of_model(model.config.guides, weights),
            patterns,
            ids,
            training_ids,
            of.subject,
            of.record.fold,
        )


def evaluate_guides(
    evaluation: "Evaluation",
    table: TrialTable,
    saved: Sequence[EvaluatedPipeline],
    records: Sequence[TrainingRecord],
    out: Path,
    started: float,
) -> Report:
    """The report of pipelines that decode guides and draw nothing.

    Args:
        evaluation: What is asked for.
        table: The trial table.
        saved: The pipeline, or those of folds.
        records: How each was trained.
        out: Folder of the report.
        started: When this began.

    Raises:
        FmriModelsError: Something is asked for that needs pictures, or a subject has no test trials.
    """
    _check_asked(evaluation)
    found, tested, transductive = [], [], False
    drawn_by = SeededDrawing(DrawingSettings(), evaluation.seed, "float32")
    repetitions: Literal["average", "single"] = "single" if evaluation.repetitions == "single" else "average"
    for each, record in zip(saved, records, strict=True):
        pipeline = each.load()
        transductive |= pipeline.processor.is_transductive or pipeline.brain_model.is_transductive
        for subject in subjects_in_table(pipeline, table, record):
            if not tested_stimuli(table, subject, record, evaluation.protocol.measured_trials):
                continue
            of = EvaluatedSubject(
                pipeline, drawn_by, record, table, subject, None, repetitions,
                measured=evaluation.protocol.measured_trials,
            )  # fmt: skip
            found.append(guides_of(of, evaluation.guide_weights))
            rows = SubjectRows(subject, record.fold, of.stimulus_ids, torch.zeros(0), {}, {}, None, of.held_out)
            rows.notes = processor_notes(pipeline.processor, table, of.test)
            tested.append(rows)
    if not found:
        raise FmriModelsError(
            f"{one_line(table.path)} has no test trials of the subjects of {one_line(evaluation.model)}; evaluate "
            "other folds, or train on a split that has some."
        )
    record = records[0]
    scores = guide_scores(found, evaluation.seed)
    held_out = [each.held_out for each in tested]
    learned = held_out_notes(held_out)
    num_folds = table.num_folds(record.split)
    rows_of_split = table.split_rows(record.split)
    test_trials = {fold: part_fingerprints(rows_of_split, fold)[TEST] for fold in sorted({each.fold for each in found})}
    fingerprints = {str(fold): fingerprint for fold, fingerprint in test_trials.items()}
    looks = looks_at_folds(table.path, table.fingerprint, record.split, test_trials)
    name = Path(evaluation.model).name if Path(evaluation.model).is_dir() else os.fspath(evaluation.model)
    spaces = {guide: space.to_dict() for guide, space in pipeline.brain_model.config.guides.items()}
    report = Report.from_scores(
        scores,
        GUIDES.with_trial_average(repetitions != "single"),
        data=described_data(table, record, tested, None) | {"test_fingerprints": fingerprints},
        model={
            "path": name,
            "method": record.method,
            "subjects": pipeline.processor.subject_names,
            "repetitions_trained_on": record.repetitions,
            "training_seconds": record.seconds,
            "transductive": transductive or any(each.learned_fmri for each in held_out),
        },
        timing={"total_s": time.perf_counter() - started},
        seed=evaluation.seed,
        looks=[look for look, _ in looks],
        notes=[
            *learned,
            *dict.fromkeys(note for each in tested for note in each.notes),
            *([f"The voxels are simulated: {table.name} says nothing of people."] if table.simulated else []),
            _NO_PICTURES,
            looks_sentence(looks, test_trials, num_folds),
        ],
        missing_rows={"permuted_training": _NO_REFIT},
    )
    report.guides = guides_content(found, spaces, evaluation.seed)
    report.warnings = [*learned, *filter(None, [table.repeats_stimuli(record.split)]), *table.cautions]
    write_report(out, report, scores, {}, None)
    score = {metric: value["value"] for metric, value in report.results["brain"].items() if value is not None}
    config = {"model": name, "recipe": record.recipe, "protocol": GUIDES.name}
    look = name_of_look(record.split, test_trials, num_folds)
    record_look(table.path, table.fingerprint, look, config, score, test_trials=fingerprints)
    return report


def _check_asked(evaluation: "Evaluation") -> None:
    asked = {
        "--reference": evaluation.reference is not None,
        "--refit-permuted": evaluation.refit is not None,
        "--audit": bool(evaluation.audit),
        "--split-gap": evaluation.split_gap is not None,
        "--rater-pack": evaluation.rater_pack is not None,
        "--repetitions curve": evaluation.repetitions == "curve",
    }
    for option, given in asked.items():
        if given:
            raise FmriModelsError(
                f"{one_line(evaluation.model)} decodes layers of networks and draws no pictures, which {option} is "
                "for; leave it out."
            )
