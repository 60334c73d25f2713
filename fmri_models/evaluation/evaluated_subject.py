"""What the rows of one subject on one fold are drawn from, and how: alike, and from the same noise."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from .. import progress
from ..conditions import Conditions
from ..data.generator_pictures import pictures_to_embed, prepare_pictures
from ..data.processed import ProcessedTrials
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..drawing_request import DrawingRequest
from ..modeling_fmri import FmriPreTrainedModel
from ..modeling_outputs import FmriDecoding
from ..pipeline_fmri import FmriToImagePipeline
from ..scenes import SceneFactors
from ..training_record import TrainingRecord
from .controls import LinearReferences, exchange_stimuli
from .held_out import HeldOut, held_out_trials
from .noise_free import noise_free_trials
from .row_data import RowData
from .scored_items import picture_ids
from .seeded_drawing import SeededDrawing
from .training_pictures import TrainingPictures, training_pictures


@dataclass(eq=False)
class EvaluatedSubject:
    """One subject's test items of a fold, and what rows are drawn from; each made when it is first asked for.

    Args:
        pipeline: What is evaluated.
        drawn_by: How every row is drawn.
        record: How the pipeline was trained.
        table: The trial table.
        subject: Name.
        references: Ridge, on true and on exchanged pairs.
        repetitions: Whether an item is a stimulus, its repetitions averaged, or a trial.
        reference: Another pipeline to stand beside; None for none.
        refitted: The pipeline's model, trained on exchanged pairs; None where it was not.
        rows: Name ▶ those that were drawn so far.
        doing: What is drawn now, for bars.
    """

    pipeline: FmriToImagePipeline
    drawn_by: SeededDrawing
    record: TrainingRecord
    table: TrialTable
    subject: str
    references: LinearReferences
    repetitions: Literal["average", "single"]
    reference: FmriToImagePipeline | None = None
    refitted: FmriPreTrainedModel | None = None
    rows: dict[str, RowData] = field(default_factory=dict)
    doing: str = ""

    # ------------------------------------------------------------------------------------------------------- items

    @cached_property
    def held_out(self) -> HeldOut:
        """The test trials, and what is known of whether they were learned from."""
        return held_out_trials(self.pipeline, self.table, self.subject)

    @property
    def test(self) -> Trials:
        """The test trials."""
        return self.held_out.trials

    @cached_property
    def _processed(self) -> ProcessedTrials:
        return ProcessedTrials(self.test, self.pipeline.processor, self.repetitions)

    @cached_property
    def stimulus_ids(self) -> list[str]:
        """N stimuli, one of each item."""
        return self._processed.stimulus_ids.tolist()

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    @cached_property
    def truth(self) -> torch.Tensor:
        """(N, C, H, W) what was shown, in [0, 1], of the size that the generator draws."""
        return self.as_drawn(self.table.stimuli.images(self.stimulus_ids))

    @cached_property
    def gallery_embeds(self) -> torch.Tensor | None:
        """(N, …) embeddings of what was shown, prepared as training targets are; None without retrieval."""
        if self.decoding.retrieval_embeds is None:
            return None
        generator = self.pipeline.image_generator
        return generator.embed_images(pictures_to_embed(self.table.stimuli.images(self.stimulus_ids), generator))

    @cached_property
    def different_pictures(self) -> int:
        """How many pictures were shown, however many ids each has."""
        return len(set(self._pictures))

    @cached_property
    def _pictures(self) -> list[str]:
        return picture_ids(self.stimulus_ids, self.truth).tolist()

    @cached_property
    def scenes(self) -> list[SceneFactors] | None:
        """Factors of built-in scenes; None for other pictures."""
        names = {each.name for each in fields(SceneFactors)}
        factors = self.table.stimuli.factors(self.stimulus_ids)
        known = zip(self.stimulus_ids, factors, strict=True)
        if not all(name.startswith("scene") and set(scene or {}) == names for name, scene in known):
            return None
        return [SceneFactors(**scene) for scene in factors if scene]

    @cached_property
    def training_pictures(self) -> TrainingPictures:
        """Those that stand beside the items."""
        with progress.phase("Looking for the nearest training pictures"):
            return training_pictures(self.pipeline, self.record, self.table, self.subject, self.decoding)

    # ---------------------------------------------------------------------------------------------------- patterns

    @cached_property
    def features(self) -> torch.Tensor:
        """(N, width) processed voxels."""
        return torch.from_numpy(self._processed[np.arange(len(self._processed))])

    @cached_property
    def exchanged_features(self) -> torch.Tensor:
        """(N, width) processed voxels that belong to another picture than the item's."""
        return self.features[torch.from_numpy(exchange_stimuli(self._pictures, self.drawn_by.seed))]

    @cached_property
    def noise_free_features(self) -> torch.Tensor | None:
        """(N, width) processed voxels of the simulator's responses without noise; None where there are none."""
        trials = noise_free_trials(self.table, self.test)
        if trials is None:
            return None
        expected = ProcessedTrials(trials, self.pipeline.processor, self.repetitions)
        return torch.from_numpy(expected[np.arange(len(expected))])

    @cached_property
    def features_of_references(self) -> torch.Tensor:
        """(N, width) processed voxels as [`LinearReferences`] reads them."""
        return self.references.features(self.test, self.repetitions)

    # --------------------------------------------------------------------------------------------------- decodings

    @cached_property
    def decoding(self) -> FmriDecoding:
        """What the evaluated model decodes."""
        with progress.phase(f"Decoding {self.subject}"):
            return self.decode(self.pipeline.brain_model, self.features)

    @cached_property
    def true_decoding(self) -> FmriDecoding:
        """The true embeddings and latents, as far as the model decodes them."""
        generator, config = self.pipeline.image_generator, self.pipeline.brain_model.config
        latents = None if config.latent_space is None else generator.encode_images(self.truth)
        embeds = None if config.image_embedding_space is None else generator.embed_images(self.truth)
        return FmriDecoding(image_embeds=embeds, latents=latents, retrieval_embeds=embeds)

    @staticmethod
    def only(decoding: FmriDecoding, *names: str) -> FmriDecoding:
        """These of what was decoded, and nothing else."""
        return FmriDecoding(**{name: getattr(decoding, name) for name in names})

    def decode(self, model: FmriPreTrainedModel, features: torch.Tensor) -> FmriDecoding:
        """Decodes the features (N, own width) of the subject."""
        width = max(model.config.num_voxels)
        padded = torch.nn.functional.pad(features, (0, width - features.shape[1]))
        subject = self.pipeline.processor.subject_names.index(self.subject)
        subject_ids = torch.full((len(self),), subject)
        sources = self.drawn_by.sources(len(self))
        return model.decode(padded, subject_ids, self.drawn_by.settings.num_candidates, sources)

    # ---------------------------------------------------------------------------------------------------- pictures

    def row(self, decoding: FmriDecoding) -> RowData:
        """Pictures and retrieval embeddings of what was decoded."""
        return RowData(images=self.draw(decoding), retrieval_embeds=decoding.retrieval_embeds)

    def draw(self, decoding: FmriDecoding, **changes: Any) -> torch.Tensor:
        """Pictures (N, C, H, W) of what was decoded; `changes` replace single settings."""
        settings, sources = self.drawn_by.settings.changed(changes), self.drawn_by.sources(len(self))
        request = DrawingRequest(settings, generator=sources, output_type="pt")
        with self.drawn_by.computing(self.pipeline.device):
            images = self.pipeline.images_of(decoding, request, len(self)).images
        assert isinstance(images, torch.Tensor)
        return images

    def draw_unconditionally(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the generator that was told nothing."""
        settings, sources = self.drawn_by.settings, self.drawn_by.sources(len(self))
        # The generator's own bars are turned off by the pipeline.
        with (
            progress.bar(name=self.doing, total=len(self), unit="picture") as done,
            self.drawn_by.computing(self.pipeline.device),
        ):
            nothing = Conditions(num_images=len(self))
            images = self.pipeline.image_generator.images_of(nothing, settings, sources, "pt").images
            done.update(len(self))
        return images

    def draw_reference(self) -> torch.Tensor:
        """Pictures (N, C, H, W) of the same trials as the other pipeline reads and draws them."""
        assert self.reference is not None
        other = replace(self, pipeline=self.reference, rows={})
        # Those that were held out from the evaluated one.
        other.held_out = self.held_out
        return other.draw(other.decode(other.pipeline.brain_model, other.features))

    def as_drawn(self, pictures: np.ndarray) -> torch.Tensor:
        """Given pictures (N, H, W, C) as (N, C, H, W) in [0, 1], of the size that the generator draws."""
        return prepare_pictures(pictures, self.pipeline.image_generator.image_size)
