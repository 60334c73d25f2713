"""How well responses decode that were made of another subject's, beside the subject's own to the same pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any, Protocol

import torch

from ..data.generator_pictures import pictures_to_embed
from ..data.processed import ProcessedTrials
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel, SubjectIds
from ..names import listed
from ..pipeline_fmri import FmriToImagePipeline
from .held_out import held_out_trials
from .metrics import two_way_identification
from .retrieval import retrieval_accuracy
from .similarities import correlations_of_pairs, cosine_matrix, is_constant

# Two pictures can be told apart, and correlated over.
_FEWEST = 2
_MOST_LISTED = 20


class SynthesizingModel(Protocol):
    """A brain model that turns one subject's responses into another's."""

    config: Any

    def synthesize(self, fmri: torch.Tensor, source: SubjectIds, target: SubjectIds) -> torch.Tensor: ...

    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> torch.Tensor: ...


@dataclass(frozen=True)
class SynthesisRow:
    """What some responses are worth.

    Args:
        top1: How often the picture is found among all, by cosine (chance 1/N).
        two_way: How often what was decoded correlates more with its own picture's embedding than with another's
            (chance .5).
        cosine: Mean cosine with the picture's embedding.
        voxel_correlation: Mean over the target's voxels of the correlation over pictures with the target's own
            responses; None where responses are not the target's.
        pattern_correlation: Mean over pictures of the correlation over voxels; likewise.
    """

    top1: float
    two_way: float
    cosine: float
    voxel_correlation: float | None = None
    pattern_correlation: float | None = None


@torch.no_grad()
def synthesis_scores(
    model: SynthesizingModel,
    source_fmri: torch.Tensor,
    target_fmri: torch.Tensor,
    source: str,
    target: str,
    gallery: torch.Tensor,
) -> dict[str, SynthesisRow]:
    """Turns one subject's responses into another's, decodes them with the other's layers, and says what they are worth.

    Args:
        model: With builders; in eval mode.
        source_fmri: (N, V) processed responses of the source.
        target_fmri: (N, V) processed responses of the target to the same pictures, in the same order.
        source: Name of the source.
        target: Name of the target.
        gallery: (N, …) embeddings of these pictures.

    Returns:
        Row ▶ its scores: `"synthetic"`; `"target"`, the target's own responses; `"source"`, the source's, decoded with
        its own layers; `"untranslated"`, the source's, decoded as if they were the target's: the floor.

    Raises:
        FmriModelsError: Numbers of rows differ, there are fewer than two, or the model can't do it.
    """
    if not callable(getattr(model, "synthesize", None)):
        raise FmriModelsError(
            f"{type(model).__name__} turns no responses into those of another subject; a method with builders does, "
            "such as MindBridge."
        )
    if not len(source_fmri) == len(target_fmri) == len(gallery) >= _FEWEST:
        raise FmriModelsError(
            f"There are {len(source_fmri)} responses of {source}, {len(target_fmri)} of {target} and {len(gallery)} "
            f"embeddings; give as many of each, {_FEWEST} at least, row by row of the same pictures."
        )
    synthetic = model.synthesize(source_fmri, source=source, target=target)
    width = model.config.num_voxels[model.config.subject_index(target)]
    own, made = target_fmri[:, :width], synthetic[:, :width]
    return {
        "synthetic": _row(model.retrieval_embeds(synthetic, target), gallery, made, own),
        "target": _row(model.retrieval_embeds(target_fmri, target), gallery),
        "source": _row(model.retrieval_embeds(source_fmri, source), gallery),
        "untranslated": _row(model.retrieval_embeds(source_fmri, target), gallery),
    }


def synthesis_content(
    pipeline: FmriToImagePipeline, table: TrialTable, subjects: Sequence[str]
) -> tuple[dict[str, dict[str, dict[str, float | None]]], list[str]]:
    """What report.json says of synthetic responses, and a sentence where nothing can be said.

    Args:
        pipeline: Any; of one whose model makes no responses, nothing is said.
        table: Trial table with the subjects.
        subjects: Those that are evaluated.

    Returns:
        `"subj01 to subj02"` ▶ row ▶ name ▶ score, see [`synthesis_scores`]; and notes.
    """
    if len(subjects) < _FEWEST or not callable(getattr(pipeline.brain_model, "synthesize", None)):
        return {}, []
    try:
        found = synthesis_of_table(pipeline, table, subjects)
    except FmriModelsError as error:
        return {}, [f"What synthetic responses are worth was not measured. {error}"]
    return {pair: {row: asdict(scores) for row, scores in rows.items()} for pair, rows in found.items()}, []


def synthesis_of_table(
    pipeline: FmriToImagePipeline, table: TrialTable, subjects: Sequence[str] | None = None
) -> dict[str, Mapping[str, SynthesisRow]]:
    """[`synthesis_scores`] of every pair of subjects on the test pictures that both have seen.

    Args:
        pipeline: With an image generator, which embeds the pictures.
        table: Trial table with these subjects.
        subjects: Which; None takes all of the pipeline.

    Returns:
        `"subj01 to subj02"` ▶ the scores of the pair. Pairs with fewer than two pictures in common are left out.

    Raises:
        FmriModelsError: No pair has pictures in common, some of them were learned from, or the model can't do it.
    """
    names = pipeline.processor.subject_names if subjects is None else list(subjects)
    responses = {name: _responses(pipeline, table, name) for name in names}
    found: dict[str, Mapping[str, SynthesisRow]] = {}
    for source, target in permutations(names, 2):
        shared = [stimulus for stimulus in responses[source] if stimulus in responses[target]]
        if len(shared) < _FEWEST:
            continue
        generator = pipeline.image_generator
        gallery = generator.embed_images(pictures_to_embed(table.stimuli.images(shared), generator))
        one, other = (torch.stack([responses[name][stimulus] for stimulus in shared]) for name in (source, target))
        model: Any = pipeline.brain_model
        found[f"{source} to {target}"] = synthesis_scores(model, one, other, source, target, gallery)
    if not found:
        raise FmriModelsError(
            f"No two of the subjects {listed(names, _MOST_LISTED)} have seen the same test pictures, by which "
            "synthetic responses could be compared with true ones; take a table with shared test pictures."
        )
    return found


def _responses(pipeline: FmriToImagePipeline, table: TrialTable, name: str) -> dict[str, torch.Tensor]:
    """Test stimulus ▶ (V,) the subject's processed response, its repetitions averaged, padded as the model takes it."""
    held_out = held_out_trials(pipeline, table, name)
    if held_out.learned:
        raise FmriModelsError(
            f"The pipeline has learned from {len(held_out.learned)} of the test pictures of {name} "
            f"({listed(sorted(held_out.learned), _MOST_LISTED)}), on which nothing can be measured; evaluate on others."
        )
    processed = ProcessedTrials(held_out.trials, pipeline.processor)
    values: Any = processed[torch.arange(len(processed)).numpy()]
    model: FmriPreTrainedModel = pipeline.brain_model
    missing = max(model.config.num_voxels) - values.shape[1]
    padded = torch.nn.functional.pad(torch.from_numpy(values), (0, missing))
    return dict(zip(processed.stimulus_ids.tolist(), padded, strict=True))


def _row(
    decoded: torch.Tensor, gallery: torch.Tensor, made: torch.Tensor | None = None, own: torch.Tensor | None = None
) -> SynthesisRow:
    decoded, gallery = decoded.float().flatten(1).cpu(), gallery.float().flatten(1).cpu()
    by_voxel = by_pattern = None
    if made is not None and own is not None:
        by_pattern = _mean_correlation(made, own)
        by_voxel = _mean_correlation(made.T, own.T)
    return SynthesisRow(
        top1=retrieval_accuracy(decoded, gallery),
        two_way=two_way_identification(gallery, decoded),
        cosine=float(cosine_matrix(decoded, gallery).diagonal().mean()),
        voxel_correlation=by_voxel,
        pattern_correlation=by_pattern,
    )


def _mean_correlation(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Over rows, but for those that are constant on either side, which correlate with nothing."""
    one, other = one.double().cpu(), other.double().cpu()
    varies = ~(is_constant(one) | is_constant(other))
    if not varies.any():
        return None
    return float(correlations_of_pairs(one[varies], other[varies]).mean())
