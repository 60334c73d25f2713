"""Methods that train their image generator: what draws references, and what the floor and the nearest picture are."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ..data.targets import DEFAULT_TARGETS, TARGET_SPACES, Target
from ..generation.image_generator import ImageGenerator
from ..names import listed
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import TrainingRecord

# What the row `floor` is drawn from.
Floor = Literal["nothing", "mean condition"]


def generator_of_references(pipeline: FmriToImagePipeline) -> ImageGenerator | None:
    """What draws the rows that need a generator's own embeddings: the pipeline's, as it was before any training.

    Returns:
        None where the one before is not known, or has no embeddings of pictures.
    """
    if not pipeline.has_trained_generator:
        generator: ImageGenerator = pipeline.image_generator
        return generator
    before: ImageGenerator | None = pipeline.untrained_image_generator
    return None if before is None or before.image_embedding_space is None else before


def why_without_references(pipeline: FmriToImagePipeline) -> str:
    """A sentence on a pipeline that has no [`generator_of_references`]."""
    before = pipeline.untrained_image_generator
    why = (
        "nobody is said to have that one"
        if before is None
        else f"that one, a {type(before).__name__}, has no embeddings of pictures"
    )
    return (
        "The image generator was trained together with the brain model, so that what needs its own embeddings of "
        f"pictures is drawn by it as it was before, and {why}: there are no rows ridge, permuted_training, ceiling and "
        "ceiling_embeds_only."
    )


def targets_of_references(pipeline: FmriToImagePipeline, generator: ImageGenerator) -> list[Target]:
    """What references decode: the targets of the evaluated model, or where these are no embeddings that a trained
    generator drew from, what the recipe `linear` decodes with the generator as it was before.
    """
    config = pipeline.brain_model.config
    decoded = [target for target, space in TARGET_SPACES.items() if config.space(space) is not None]
    if not pipeline.has_trained_generator or "image_embeds" in decoded:
        return decoded
    return [target for target in DEFAULT_TARGETS if getattr(generator, TARGET_SPACES[target]) is not None]


def floor_of(pipeline: FmriToImagePipeline, record: TrainingRecord) -> Floor:
    """What the row `floor` is drawn from.

    A generator that has never been without a condition in its training draws anything from none, and not what it draws
    when it knows nothing: the mean of what it was told in training stands for that.
    """
    return "nothing" if not pipeline.has_trained_generator or record.drops_conditions else "mean condition"


def notes_on_learning(
    pipeline: FmriToImagePipeline, record: TrainingRecord, rows: Iterable[str], nearest_by: Iterable[str]
) -> list[str]:
    """What has to be known of the rows of a pipeline whose generator was trained, or that decodes no embeddings.

    Args:
        pipeline: What was evaluated.
        record: How it was trained.
        rows: Those that there are.
        nearest_by: What the pictures of `nearest_train` were compared by, where that is not what was decoded.
    """
    there, notes = set(rows), [*pipeline.brain_model.config.notes_on_training, *_notes_on_fmri_alone(record)]
    if "nearest_train" in there:
        notes += [
            f"The method decodes no embeddings of pictures: nearest_train is the training picture nearest to the "
            f"reconstruction by {name}."
            for name in dict.fromkeys(nearest_by)
        ]
    if not pipeline.has_trained_generator:
        return notes
    drawn = [row for row in ("permuted_training", "ceiling", "ceiling_embeds_only", "ridge") if row in there]
    if drawn:
        notes.append(
            f"The image generator was trained together with the brain model; {', '.join(drawn)} are drawn by it as it "
            "was before, from its own embeddings of pictures."
        )
    if floor_of(pipeline, record) == "nothing":
        notes.append("floor is drawn from no condition, which the image generator has learned to do (dropout).")
    else:
        notes.append(
            "floor is drawn from the mean of the conditions that are decoded from a subject's training trials, since "
            "the image generator was trained without dropout of its condition."
        )
    return notes


def _notes_on_fmri_alone(record: TrainingRecord) -> list[str]:
    """A sentence on the tables of which the fMRI was learned from without pictures; none where there are none."""
    sources = [each for each in record.learned_from or [] if each.fmri_of is not None]
    named = [f"{' and '.join(each.parts)} of {each.table} (split {each.split!r}, fold {each.fold})" for each in sources]
    return [f"fMRI without pictures was learned from, too: {listed(dict.fromkeys(named), 10, 1000)}."] if named else []


def describe_rows(
    rows: Mapping[str, dict[str, Any]], pipeline: FmriToImagePipeline, record: TrainingRecord, nearest_by: Iterable[str]
) -> None:
    """Puts into a report's rows what they are where that differs from other methods'.

    Args:
        rows: Name ▶ what the report says of it.
        pipeline: What was evaluated.
        record: How it was trained.
        nearest_by: As of [`notes_on_learning`].
    """
    if "floor" in rows and pipeline.has_trained_generator:
        described = {
            "nothing": "The generator without any condition, which it has learned to draw from.",
            "mean condition": "The generator with the mean of the conditions decoded from training trials.",
        }
        rows["floor"]["description"] = described[floor_of(pipeline, record)]
    for name in ("permuted_training", "ceiling", "ceiling_embeds_only", "ridge"):
        if name in rows and pipeline.has_trained_generator:
            rows[name]["description"] += " Drawn by the generator as it was before training."
    if "nearest_train" in rows and any(nearest_by):
        rows["nearest_train"]["description"] = "The training picture nearest to the reconstruction."
