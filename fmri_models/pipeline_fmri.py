"""FmriToImagePipeline: from voxels to pictures, written once for all methods."""

import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from PIL import Image
from safetensors import SafetensorError
from tqdm import tqdm

from .adapters import adapters_of, check_can_be_kept, keep_with_base, unwrapped
from .component_index import (
    DIFFUSERS_SAVE_OPTIONS,
    check_can_be_saved,
    check_component_classes,
    check_index_keys,
    check_loading_options,
    check_without_adapters,
    checked_device,
    dtype_of,
    not_loaded,
    take_device_map,
    take_dtype,
)
from .configuration_fmri import FmriConfig
from .drawing_settings import DrawingSettings
from .embedding_space import EmbeddingSpace
from .errors import FmriModelsError
from .generation.image_generator import ImageGenerator
from .generation.loading import (
    image_generator_class,
    image_generator_of_class,
    load_source,
    located,
    parse_source,
    resolved,
)
from .generation.source import SPACES, GeneratorSource
from .generation.step_callback import CALLBACK_TENSORS, CallbackFunction, CallState, StepCallback
from .hub_repository import (
    FETCH_OPTIONS,
    split_push_options,
    upload,
    upload_saved,
)
from .loaded_components import LoadedComponents
from .modeling_fmri import FmriPreTrainedModel
from .modeling_outputs import FmriDecoding
from .names import one_line
from .offloading import check_can_be_sent_by_layer, weights_in_place, without_index_of_cpu
from .pipeline_folder import (
    CARD_FILE,
    INDEX_FILE,
    PIPELINE_SCHEMA,
    REPORT_FILES,
    is_foreign_card,
    local_folder,
    no_longer_needed,
    other_class,
    published,
    read_accompanying,
    read_index,
    saved_settings,
    with_places,
    without_places,
)
from .processing_fmri import FmriProcessor
from .progress import of_pipeline
from .registry import card_writer, find_class, report_finder
from .saving import check_schema, merged_folder, warn_of_pickles
from .seeds import checked_generators
from .swapping import recover, written_files
from .training_record import CHANGED_LATER, GIVEN_LATER, TRAINING_FILE, WITH_ADAPTER, TrainingRecord
from .version import __version__
from .weights import check_variant, check_variant_name, variants_in

_GENERATOR_FETCH_OPTIONS = ("cache_dir", "token", "local_files_only")
_IMAGES_A_BATCH = 64
# Whether somebody who knows what lies beside the components is loading, so that the pipeline need not look itself.
_is_read_whole: ContextVar[bool] = ContextVar("is_read_whole", default=False)
_PARTS = ("brain_model", "processor", "image_generator")


logger = logging.get_logger(__name__)


@dataclass
class FmriPipelineOutput(BaseOutput):
    """Output of a pipeline.

    Args:
        images: One picture a trial: PIL pictures, or an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1]; for
            `output_type="latent"`, the latents that they are decoded from.
        candidates: With several candidates, all of them, a list of `num_candidates` a trial (of latents, a tensor a
            trial); else None.
        scores: (N, num_candidates) similarity of each candidate to what the brain says; None without a choice.
        image_embeds: (N, …) decoded image embeddings; None if the method decodes none.
        low_level_images: The decoded low-level picture alone, like `images`; None if the method decodes no latents.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    candidates: list[list[Image.Image]] | list[torch.Tensor] | None = None
    scores: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    low_level_images: list[Image.Image] | np.ndarray | torch.Tensor | None = None


class FmriToImagePipeline(CallState, DiffusionPipeline):
    """Voxels ▶ brain model ▶ image generator.

    Args:
        brain_model: A brain model; of one that `peft.get_peft_model` has wrapped, the model inside with its adapters.
        processor: The processor that the brain model was trained with.
        image_generator: Draws the pictures; None for methods that only identify.
        image_generator_source: Where the generator's weights are: a name, a folder, a Hub repository, a mapping or a
            [`GeneratorSource`]. Such a generator is not saved with the pipeline but named by it, and loaded when it is
            first needed. A generator that was loaded from published weights knows its source.
        drawing_settings: What the pipeline draws with where a call says nothing else: [`DrawingSettings`], or a mapping
            of what differs from those of the image generator's class. They are saved with the pipeline.

    Attributes:
        training_record: How a loaded pipeline was trained; None where that is not known.

    Example:
        >>> from fmri_models import FmriToImagePipeline
        >>> pipe = FmriToImagePipeline.from_pretrained("outputs/demo/pipeline")
        >>> image = pipe(betas, subject="subj01", session=3).images[0]
    """

    model_cpu_offload_seq = "brain_model"
    _optional_components = ["image_generator"]
    _callback_tensor_inputs = CALLBACK_TENSORS

    def __init__(
        self,
        brain_model: FmriPreTrainedModel,
        processor: FmriProcessor,
        image_generator: ImageGenerator | None = None,
        image_generator_source: str | Mapping[str, Any] | GeneratorSource | None = None,
        drawing_settings: DrawingSettings | Mapping[str, Any] | None = None,
        fmri_schema: int = PIPELINE_SCHEMA,
        fmri_models_version: str = __version__,
    ) -> None:
        super().__init__()
        check_schema(fmri_schema, PIPELINE_SCHEMA, f"The pipeline's {INDEX_FILE}")
        brain_model = unwrapped(brain_model)
        for name, part in (("brain_model", brain_model), ("processor", processor)):
            _check_part(name, part)
        _check_subjects(brain_model, processor)
        self._hub_options: dict[str, Any] = {}
        # How a named generator is loaded, once it is needed.
        self._generator_dtype: Any = None
        self._generator_variant: str | None = None
        self._accompanying: dict[str, bytes] = {}
        # What these files speak of; None for a pipeline that was not loaded.
        self._loaded_components: LoadedComponents | None = None
        # Calls that reach the image generator, too: by what they decide, their names and arguments.
        self._for_generator: dict[str, tuple[str, dict[str, Any]]] = {}
        self.training_record: TrainingRecord | None = None
        self.register_modules(brain_model=brain_model, processor=processor)
        self.image_generator = image_generator
        if image_generator_source is not None:
            self._refer_to(parse_source(image_generator_source))
        self._register_image_generator()
        self.drawing_settings = self._generators_settings().changed(drawing_settings)
        self.register_to_config(fmri_schema=PIPELINE_SCHEMA, fmri_models_version=fmri_models_version)
        brain_model.eval()

    @property
    def image_generator(self) -> Any:
        """The [`ImageGenerator`] that draws, or None; one that is only named is loaded when it is first asked for."""
        if self._image_generator is None and self.image_generator_source is not None:
            generator = load_source(
                self.image_generator_source,
                dtype=self._generator_dtype or self.brain_model.dtype,
                variant=self._generator_variant,
                **self._hub_options,
            )
            if "offload" not in self._for_generator:
                generator.to(self.brain_model.device)
            self._take(generator)
        return self._image_generator

    @image_generator.setter
    def image_generator(self, image_generator: ImageGenerator | None) -> None:
        self._image_generator: ImageGenerator | None = None
        self._source: GeneratorSource | None = None
        if image_generator is not None:
            self._take(image_generator)
            self._source = image_generator.source

    @property
    def drawing_settings(self) -> DrawingSettings:
        """What is drawn with where a call says nothing else; a mapping that is assigned replaces single values.

        Raises:
            FmriModelsError: Something else was registered under this name.
        """
        # Mappings that somebody has registered may be of some values, as `register_to_config` of diffusers has it.
        return self._generators_settings().changed(self.config.drawing_settings)

    @drawing_settings.setter
    def drawing_settings(self, settings: DrawingSettings | Mapping[str, Any]) -> None:
        current = self.drawing_settings if "drawing_settings" in self.config else DrawingSettings()
        self.register_to_config(drawing_settings=current.changed(settings).to_dict())

    def _generators_settings(self) -> DrawingSettings:
        """What the class of the image generator draws with."""
        if self._image_generator is not None:
            return self._image_generator.drawing_settings
        name = None if self._source is None else self._source.name
        return DrawingSettings() if name is None else image_generator_class(name).drawing_settings

    @property
    def image_generator_source(self) -> GeneratorSource | None:
        """Where the generator's weights are, if the pipeline names its generator instead of containing it."""
        return self._source

    def _refer_to(self, source: GeneratorSource) -> None:
        source = resolved(source) if self._image_generator is None else located(source, self._image_generator)
        _check_spaces(self.brain_model, {kind: source.space(kind) for kind in SPACES})
        self._source = source

    def _take(self, image_generator: ImageGenerator) -> None:
        _check_part("image_generator", image_generator)
        _check_spaces(self.brain_model, {kind: getattr(image_generator, kind) for kind in SPACES})
        if "progress_bar" not in self._for_generator:
            # One bar for all pictures, not one for each batch of them.
            image_generator.set_progress_bar_config(disable=True)
        for method, arguments in self._for_generator.values():
            getattr(image_generator, method)(**arguments)
        self._image_generator = image_generator

    def _register_image_generator(self) -> None:
        """Makes the generator a component, which is saved with the pipeline, or notes where it is."""
        source, generator = self._source, self._image_generator
        self.register_modules(image_generator=None if source is not None else generator)
        self._source, self._image_generator = source, generator
        self.register_to_config(image_generator_source=None if source is None else source.to_dict())

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name; a generator that is only named is among them as soon as it has been loaded."""
        parts = {"brain_model": self.brain_model, "processor": self.processor}
        return {**parts, "image_generator": self._image_generator}

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        expected, optional = super()._get_signature_keys(obj)
        # diffusers goes through the components to move or to describe them, which must not load a generator.
        if isinstance(obj, FmriToImagePipeline) and obj._image_generator is None:
            expected.remove("image_generator")
        return expected, optional

    def settings_used(self, settings: DrawingSettings) -> dict[str, Any]:
        """Those of the settings that change what this pipeline draws, by name.

        A generator that draws nothing at random has no use for steps or guidance, and candidates of it are all the
        same, unless the method samples what they are drawn from.
        """
        generator, used = self.image_generator, set[str]()
        if generator is not None and generator.generates_from_embeddings:
            used |= set(generator.used_settings)
            if self.brain_model.samples:
                used |= {"num_candidates", "selection"}
        return {name: value for name, value in settings.to_dict().items() if name in used}

    def warn_of_unused(self, given: Mapping[str, Any]) -> None:
        """One warning that names settings that were given and change nothing of what this pipeline draws."""
        used = self.settings_used(self.drawing_settings)
        unused = [name for name, value in given.items() if value is not None and name not in used]
        if unused:
            have = "has" if len(unused) == 1 else "have"
            drawn_by = type(self.image_generator).__name__
            why = "" if "num_candidates" in used else ", which draws nothing at random"
            warnings.warn(
                f"{', '.join(unused)} {have} no effect with this pipeline's {drawn_by}{why}.",
                stacklevel=4,
            )

    @torch.no_grad()
    def __call__(
        self,
        fmri: np.ndarray | torch.Tensor,
        subject: str | Sequence[str] | None = None,
        session: int | Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        num_candidates: int | None = None,
        selection: Literal["brain", "oracle", "first"] | None = None,
        true_images: torch.Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> FmriPipelineOutput:
        """Reconstructs one picture from each pattern, drawn with the `drawing_settings` but for what is given here.

        Args:
            fmri: (N, voxels) or (voxels,) betas of one subject as they were recorded, or a sequence of patterns.
            subject: Name of the subject, or one a pattern; may be left out if the model has one subject.
            session: Session, or one a pattern, where the processor keeps statistics by session.
            num_inference_steps: Denoising steps of a generator with a diffusion model.
            guidance_scale: Weight of the decoded embeddings against the unconditional prediction.
            strength: How much of the decoded low-level picture is replaced, 0 (none) to 1 (all).
            num_candidates: Pictures to draw of each pattern.
            selection: Choose among candidates by the `"brain"` (similarity to the decoded embedding), by an `"oracle"`
                that knows the true picture (to reproduce papers; never a result), or take the `"first"`.
            true_images: (N, C, H, W) in [0, 1], for the oracle.
            generator: One source of noise for all, or one a pattern.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for the latents that the pictures are decoded from,
                where the generator has latents.
            return_dict: Whether to return an output by names, or the tuple of what it holds, the pictures first.
            callback_on_step_end: Called as `function(pipeline, step, timestep, tensors)` at the end of each of the
                generator's denoising steps, or once where nothing is denoised. Tensors that it returns take the place
                of those that it was given; setting `pipeline._interrupt` ends the denoising, and
                `pipeline._guidance_scale` changes the guidance of the steps that follow. Pictures are drawn in chunks,
                each of which takes all its steps, and candidates as pictures of their own.
            callback_on_step_end_tensor_inputs: What it is given, of `"latents"`, `"image_embeds"`, `"text_embeds"`.

        Returns:
            [`FmriPipelineOutput`], or a tuple.

        Raises:
            FmriModelsError: The voxels do not fit the processor, or an option is out of range.
        """
        settings = self.check_inputs(
            num_inference_steps, guidance_scale, strength, num_candidates, selection, true_images, output_type
        )
        StepCallback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        self.warn_of_unused(
            {
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "strength": strength,
                "num_candidates": num_candidates,
                "selection": selection,
            }
        )
        # It may have been fitted or exchanged since the pipeline was made.
        _check_subjects(self.brain_model, self.processor)
        inputs = self.processor(fmri, subject=subject, session=session)
        features = inputs["fmri"].reshape(-1, inputs["fmri"].shape[-1])
        if len(features) != len(inputs["subject_ids"]):
            raise FmriModelsError(
                f"The patterns have the shape {tuple(np.shape(fmri))}; expected (patterns, voxels), or one of "
                "(voxels,): a picture is drawn of each. Average repetitions of the processor's output and pass them to "
                "decode(), or give each its own row."
            )
        generator = checked_generators(generator, len(features))
        if selection == "oracle":
            _check_true_images(true_images, len(features), self.image_generator)
        decoding = self.decode(features, inputs["subject_ids"], settings.num_candidates, generator)
        return self.generate(
            decoding,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            strength=strength,
            num_candidates=num_candidates,
            selection=selection,
            true_images=true_images,
            generator=generator,
            output_type=output_type,
            num_patterns=len(features),
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )

    def check_inputs(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        num_candidates: int | None = None,
        selection: str | None = None,
        true_images: torch.Tensor | None = None,
        output_type: str = "pil",
    ) -> DrawingSettings:
        """What a call draws with; refuses options that make no sense, before any work.

        Raises:
            FmriModelsError: Names the option, its value and the range.
        """
        if selection == "oracle" and true_images is None:
            raise FmriModelsError("selection='oracle' needs the true pictures; pass true_images=.")
        if selection != "oracle" and true_images is not None:
            raise FmriModelsError(
                "true_images= is read by selection='oracle' alone and would change nothing here; leave it out, or pass "
                "selection='oracle'."
            )
        given = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "strength": strength,
            "num_candidates": num_candidates,
            "selection": None if selection == "oracle" else selection,
        }
        settings = self.drawing_settings.changed(given)
        if self.image_generator is None:
            raise FmriModelsError("This pipeline has no image generator; load it with image_generator=.")
        self.image_generator.check_output(output_type)
        return settings

    @torch.no_grad()
    def decode(
        self,
        features: torch.Tensor,
        subject_ids: torch.Tensor,
        num_candidates: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> FmriDecoding:
        """Decodes processed voxels (N, V); repetitions may have been averaged before.

        With one generator a pattern, what a method samples of a pattern comes from its own. A method that samples does
        so `num_candidates` times, or as often as the pipeline's settings say.
        """
        num_candidates = self.drawing_settings.changed({"num_candidates": num_candidates}).num_candidates
        generator = checked_generators(generator, len(features))
        device = self._execution_device
        # On an accelerator nobody reads ids any more.
        subject_ids = self.brain_model.subject_indices(subject_ids, features.shape[0])
        features, subject_ids = features.to(device), subject_ids.to(device)
        try:
            decoding = self.brain_model.decode(
                features, subject_ids, num_candidates=num_candidates, generator=generator
            )
        finally:
            self.maybe_free_model_hooks()
        for name, values in decoding.items():
            _check_finite(values, f"The brain model decodes {name}")
        return decoding if return_dict else cast(Any, decoding.to_tuple())

    @torch.no_grad()
    def generate(
        self,
        decoding: FmriDecoding,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        num_candidates: int | None = None,
        selection: Literal["brain", "oracle", "first"] | None = None,
        true_images: torch.Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        num_patterns: int | None = None,
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> FmriPipelineOutput:
        """Draws, ranks and chooses pictures from what was decoded; the arguments are those of `__call__`.

        `num_patterns` says how many patterns were decoded, which nothing else does where a method gives nothing but
        several samples of each.

        Raises:
            FmriModelsError: What was decoded, the generators and the true pictures are not of the same patterns.
        """
        settings = self.check_inputs(
            num_inference_steps, guidance_scale, strength, num_candidates, selection, true_images, output_type
        )
        on_step_end = StepCallback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        num_trials = _num_trials(decoding, settings.num_candidates, num_patterns)
        generator = checked_generators(generator, num_trials)
        if selection == "oracle":
            _check_true_images(true_images, num_trials, self.image_generator)
        # Several draws differ only where a generator samples; otherwise one is all there is.
        drawn = settings.num_candidates if self.image_generator.generates_from_embeddings else 1
        candidates = self._draw(decoding, num_trials, drawn, generator, settings, output_type, on_step_end)
        _check_finite(candidates, "The image generator draws pictures")
        choice = "oracle" if selection == "oracle" else settings.selection
        scores = self._score(candidates, decoding, choice, true_images, output_type)
        chosen = (
            candidates[torch.arange(len(candidates)), scores.argmax(dim=1)] if scores is not None else candidates[:, 0]
        )
        low_level = self._low_level(decoding, output_type)
        postprocess = self.image_generator.postprocess
        shown = "latent" if output_type == "latent" else "pil"
        output = FmriPipelineOutput(
            images=postprocess(chosen, output_type).images,
            candidates=[postprocess(each, shown).images for each in candidates] if drawn > 1 else None,
            scores=scores,
            image_embeds=decoding.image_embeds,
            low_level_images=None if low_level is None else postprocess(low_level, output_type).images,
        )
        return output if return_dict else cast(Any, output.to_tuple())

    @torch.compiler.disable
    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> tqdm:
        """A bar that says what is drawn, by `set_progress_bar_config`; a line now and then where output is a file."""
        return of_pipeline(self, "Drawing pictures", iterable, total, "picture")

    def _draw(
        self,
        decoding: FmriDecoding,
        num_trials: int,
        num_candidates: int,
        generator: torch.Generator | list[torch.Generator] | None,
        settings: DrawingSettings,
        output_type: str,
        on_step_end: StepCallback,
    ) -> torch.Tensor:
        """(N, num_candidates, C, H, W) pictures or latents, drawn in chunks that fit into memory."""
        use_embeddings = self.image_generator.generates_from_embeddings
        parts: dict[str, torch.Tensor | None] = {"latents": decoding.latents}
        if use_embeddings:
            parts |= {"image_embeds": decoding.image_embeds, "text_embeds": decoding.text_embeds}
        repeated = {name: _repeat(value, num_trials, num_candidates) for name, value in parts.items()}
        total = num_trials * num_candidates
        options = {name: getattr(settings, name) for name in ("num_inference_steps", "guidance_scale", "strength")}
        options |= {"output_type": "latent" if output_type == "latent" else "pt", **self._callback_of(on_step_end)}
        drawn = []
        with self.progress_bar(total=total) as progress:
            for start in range(0, total, _IMAGES_A_BATCH):
                rows = slice(start, min(start + _IMAGES_A_BATCH, total))
                chunk = {name: None if value is None else value[rows] for name, value in repeated.items()}
                source = generator
                if isinstance(generator, list):
                    source = [generator[index // num_candidates] for index in range(rows.start, rows.stop)]
                drawn.append(self.image_generator(**chunk, **options, generator=source).images)
                if self.interrupt:
                    # Of pictures that had not begun, nothing more is denoised than one step.
                    options["callback_on_step_end"] = _interrupt
                progress.update(rows.stop - rows.start)
        pictures = torch.cat(drawn)
        return pictures.reshape(num_trials, num_candidates, *pictures.shape[1:])

    def _score(
        self,
        candidates: torch.Tensor,
        decoding: FmriDecoding,
        selection: str,
        true_images: torch.Tensor | None,
        output_type: str,
    ) -> torch.Tensor | None:
        """(N, K) cosine similarity of each candidate's embedding to the reference; None if there is nothing to rank."""
        if candidates.shape[1] == 1 or selection == "first":
            return None
        if selection == "oracle":
            reference = self.image_generator.embed_images(true_images)
        elif decoding.retrieval_embeds is not None:
            reference = decoding.retrieval_embeds
        else:
            return None
        pictures = candidates.flatten(0, 1)
        if output_type == "latent":
            pictures = self._decoded(pictures)
        embedded = self.image_generator.embed_images(pictures).flatten(1)
        embedded = embedded.reshape(*candidates.shape[:2], -1)
        return torch.nn.functional.cosine_similarity(embedded, reference.flatten(1)[:, None].float(), dim=-1)

    def _low_level(self, decoding: FmriDecoding, output_type: str) -> torch.Tensor | None:
        if decoding.latents is None or output_type == "latent":
            return decoding.latents
        return self._decoded(decoding.latents)

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (N, C, H, W) of latents as they are; what the pipeline says of its last steps stays."""
        generator, chunks = self.image_generator, latents.split(_IMAGES_A_BATCH)
        said = {name: getattr(generator, name) for name in ("_guidance_scale", "_num_timesteps", "_interrupt")}
        pictures = torch.cat([generator(latents=chunk, strength=0.0, output_type="pt").images for chunk in chunks])
        for name, value in said.items():
            setattr(generator, name, value)
        return pictures

    def _callback_of(self, on_step_end: StepCallback) -> dict[str, Any]:
        """What the image generator is told of the callback, whose pipeline is this one."""
        function = on_step_end.function
        if function is None:
            return {}
        return {
            "callback_on_step_end": lambda _, *arguments: function(self, *arguments),
            "callback_on_step_end_tensor_inputs": on_step_end.names,
        }

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the pictures that are drawn together; 1 where nothing is denoised."""
        return 0 if self._image_generator is None else self._image_generator.num_timesteps

    @property
    def _guidance_scale(self) -> float:
        return 1.0 if self._image_generator is None else self._image_generator._guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, guidance_scale: float) -> None:
        if self._image_generator is not None:
            self._image_generator._guidance_scale = guidance_scale

    @property
    def _interrupt(self) -> bool:
        return self._image_generator is not None and self._image_generator._interrupt

    @_interrupt.setter
    def _interrupt(self, interrupt: bool) -> None:
        if self._image_generator is not None:
            self._image_generator._interrupt = interrupt

    def to(self, *args: Any, **kwargs: Any) -> "FmriToImagePipeline":
        """Moves or casts the pipeline; the image generator, a pipeline itself, goes along, now or when it is loaded.

        The processor's statistics stay in float32.

        Raises:
            FmriModelsError: There is no such device here.
        """
        for value in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if isinstance(value, torch.dtype):
                self._generator_dtype = value
            elif value is not None:
                checked_device(value, f"{type(self).__name__}.to")
        super().to(*args, **kwargs)
        if self._image_generator is not None:
            self._image_generator.to(*args, **kwargs)
        return self

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """How bars are shown, as in diffusers; those of the image generator, which are hidden otherwise, too."""
        super().set_progress_bar_config(**kwargs)
        self._generator_too("progress_bar", "set_progress_bar_config", kwargs)

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Keeps networks on the CPU, each until it is called; those of the image generator, too."""
        super().enable_model_cpu_offload(gpu_id, device)
        self._generator_too("offload", "enable_model_cpu_offload", {"device": self._offload_device})

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps weights on the CPU, each until its layer is called; those of the image generator, too.

        Raises:
            FmriModelsError: An adapter of a network computes with weights of layers that it does not call.
        """
        check_can_be_sent_by_layer(self.brain_model, "brain_model")
        if self._image_generator is not None:
            self._image_generator.check_can_be_sent_by_layer()
        super().enable_sequential_cpu_offload(gpu_id, device)
        without_index_of_cpu(self.brain_model)
        self._generator_too("offload", "enable_sequential_cpu_offload", {"device": self._offload_device})

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """Keeps groups of layers elsewhere until they are called; those of the image generator, too."""
        super().enable_group_offload(*args, **kwargs)
        given = inspect.signature(super().enable_group_offload).bind(*args, **kwargs).arguments
        self._generator_too("offload", "enable_group_offload", dict(given))

    def remove_all_hooks(self) -> None:
        """Ends the offloading, that of the image generator, too."""
        super().remove_all_hooks()
        self._for_generator.pop("offload", None)
        if self._image_generator is not None:
            self._image_generator.remove_all_hooks()

    def reset_device_map(self) -> None:
        """Ends what a `device_map` has begun, for the image generator, too."""
        super().reset_device_map()
        if self._image_generator is not None:
            self._image_generator.reset_device_map()

    def set_attention_slice(self, slice_size: str | int | None) -> None:
        """Computes attention in slices, that of the image generator, too."""
        super().set_attention_slice(slice_size)
        self._generator_too("attention_slice", "set_attention_slice", {"slice_size": slice_size})

    def set_use_memory_efficient_attention_xformers(
        self, valid: bool, attention_op: Callable[..., Any] | None = None
    ) -> None:
        """Switches xFormers' attention on or off, that of the image generator, too."""
        super().set_use_memory_efficient_attention_xformers(valid, attention_op)
        arguments = {"valid": valid, "attention_op": attention_op}
        self._generator_too("xformers", "set_use_memory_efficient_attention_xformers", arguments)

    def _generator_too(self, decides: str, method: str, arguments: dict[str, Any]) -> None:
        """Calls a method of the image generator, now or, if it is only named, as soon as it has been loaded."""
        if self._image_generator is not None:
            getattr(self._image_generator, method)(**arguments)
        self._for_generator[decides] = method, arguments

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        **kwargs: Any,
    ) -> None:
        """Saves all components: files of these names are replaced together, everything else in the folder stays.

        An image generator that has an `image_generator_source` is named there and not copied. The card, the training
        record and the report that a loaded pipeline came with go along; a README.md of somebody else's stays. Where a
        part was changed or exchanged since, the report and its figures on the card are left out, and the record says
        of other weights that nobody knows what they have learned from.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes; the others of a distributed training do nothing.
            push_to_hub: Upload what was written, too, to `repo_id` or the folder's name.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            **kwargs: Those of `DiffusionPipeline.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: The variant is no name, the system refuses to write, or the Hub to take it.
        """
        warn_of_pickles(safe_serialization)
        if not is_main_process:
            return
        check_variant_name(kwargs.get("variant"))
        push_options = split_push_options(kwargs, DIFFUSERS_SAVE_OPTIONS)
        self._check_parts_can_be_saved()
        # Options of the processor may have been changed since; what does not fit could not be loaded.
        _check_subjects(self.brain_model, self.processor)
        self._register_image_generator()
        if unwrapped(self.brain_model) is not self.brain_model:
            self.register_modules(brain_model=unwrapped(self.brain_model))
        if adapters_of(self.brain_model):
            check_can_be_kept(self.brain_model)
        # Complete and checked, whatever somebody has registered.
        self.register_to_config(drawing_settings=self.drawing_settings.to_dict())
        with weights_in_place(*self._offloaded_networks()):
            parts = LoadedComponents.of(self)
        changed = set[str]() if self._loaded_components is None else self._loaded_components.changed(parts)
        with merged_folder(save_directory, _no_longer_true if changed else no_longer_needed) as partial:
            super().save_pretrained(str(partial), **kwargs)
            if adapters_of(self.brain_model):
                self._save_base(partial / "brain_model", kwargs)
            without_places(partial / INDEX_FILE, Path(save_directory))
            if changed:
                self._disclaim(changed)
            for name, data in self._accompanying.items():
                if name != CARD_FILE or not is_foreign_card(Path(save_directory) / CARD_FILE):
                    (partial / name).write_bytes(data)
            if changed:
                _write_card_again(partial, Path(save_directory))
            files = written_files(partial)
        if changed:
            self._loaded_components = parts
        if push_to_hub:
            if not (Path(save_directory) / CARD_FILE).is_file():
                card_writer()(save_directory)
            upload_saved(save_directory, published([*files, CARD_FILE]), "pipeline", push_options)

    def _check_parts_can_be_saved(self) -> None:
        check_can_be_saved({"brain_model": unwrapped(self.brain_model), "processor": self.processor}, "pipeline")
        if self._image_generator is None:
            return
        if self._source is None:
            self._image_generator.check_can_be_saved()
            return
        note = (
            " This pipeline only names where its image generator is: to keep a changed one, set its source to None and "
            "assign it to pipeline.image_generator again."
        )
        check_without_adapters(self._image_generator.components, type(self._image_generator).__name__, note)

    def _offloaded_networks(self) -> list[torch.nn.Module]:
        generator = {} if self._image_generator is None else self._image_generator.components
        return [part for part in (self.brain_model, *generator.values()) if isinstance(part, torch.nn.Module)]

    def _disclaim(self, changed: set[str]) -> None:
        """Parts with the report that measured others, and notes weights that came after the training."""
        for name in REPORT_FILES:
            self._accompanying.pop(name, None)
        record = self.training_record
        if record is not None and "brain_model" in changed:
            if adapters_of(self.brain_model):
                record.add_unknown(WITH_ADAPTER)
            elif GIVEN_LATER not in record.unknown_initial_models:
                record.add_unknown(CHANGED_LATER)
            self._accompanying[TRAINING_FILE] = record.to_json().encode()

    def _save_base(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Writes the weights of the brain model beside its adapter, which is all that is saved of such a model."""
        given = {name: options[name] for name in ("max_shard_size", "variant") if options.get(name) is not None}
        self.brain_model.save_base(folder, **given)
        keep_with_base(folder)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        revision: str | None = None,
        max_shard_size: int | str | None = None,
    ) -> str:
        """Uploads the pipeline with its card, training record and report in one commit.

        A pipeline without a card gets one, which says that nothing was measured unless a report came with it.

        Args:
            repo_id: `user/name`, or a name in your namespace; the repository is made where there is none.
            commit_message: First line of the commit.
            private: Whether a repository that is made is private.
            token: Token; None takes the one that is logged in.
            create_pr: Propose the commit instead of making it.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            variant: Part of the names of the weights files, such as `"fp16"`.
            revision: Branch; None takes the main one.
            max_shard_size: Size of one weights file.

        Returns:
            Address of the commit.

        Raises:
            FmriModelsError: The Hub does not take it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / repo_id.rsplit("/", 1)[-1]
            self.save_pretrained(
                folder, safe_serialization=safe_serialization, variant=variant, max_shard_size=max_shard_size
            )
            if not (folder / CARD_FILE).is_file():
                card_writer()(folder)
            committed = upload(
                folder,
                published(written_files(folder)),
                repo_id,
                commit_message or "Upload pipeline",
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )
        return committed.commit_url

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "FmriToImagePipeline":
        """Loads a pipeline from a folder or a Hub repository, as the class of its method.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `DiffusionPipeline.from_pretrained`; `dtype` reaches the image generator too,
                `image_generator=` or `image_generator_source=` replaces the saved one, and `drawing_settings=` those
                that were saved: a mapping the values that it names, [`DrawingSettings`] all of them. `unseen_session=`
                says what the processor does with sessions of which it has no statistics, see [`FmriProcessor`].

        Raises:
            FmriModelsError: There is no pipeline, a part is missing or damaged, or it was written by a newer version.
        """
        path = str(pretrained_model_name_or_path)
        what = f"{cls.__name__}.from_pretrained"
        take_dtype(kwargs, what, ("brain_model", "image_generator"))
        kwargs.setdefault("dtype", torch.float32)
        device = take_device_map(kwargs, what)
        unseen_session = kwargs.pop("unseen_session", None)
        if kwargs.pop("use_safetensors", None) is False:
            raise FmriModelsError(
                "Weights are read from safetensors alone, because others could run code; convert them."
            )
        for name in _PARTS:
            if name in kwargs:
                _check_part(name, kwargs[name])
        # Whoever gives one of the two means neither the saved weights nor the saved source.
        if "image_generator" in kwargs or "image_generator_source" in kwargs:
            kwargs = {"image_generator": None, "image_generator_source": None, **kwargs}
        given = frozenset(name for name in _PARTS if name in kwargs)
        folder = local_folder(path, kwargs)
        recover(folder)
        index = read_index(folder)
        pipeline_class = _pipeline_class(folder, index)
        mend = "save or download the pipeline again"
        check_loading_options(pipeline_class, kwargs, others=("unseen_session",))
        check_index_keys(index, pipeline_class, f"The pipeline's index {folder / INDEX_FILE}", mend)
        check_component_classes(index, pipeline_class, f"The pipeline's index {folder / INDEX_FILE}", mend, kwargs)
        if index.get("image_generator_source") is not None and "image_generator_source" not in kwargs:
            kwargs["image_generator_source"] = with_places(index["image_generator_source"], folder)
        # Pipelines that were saved without settings have always drawn with these.
        kwargs["drawing_settings"] = (saved_settings(index, folder) or DrawingSettings()).changed(
            kwargs.get("drawing_settings")
        )
        generator_options = {"dtype": dtype_of(kwargs["dtype"], "image_generator"), "variant": kwargs.get("variant")}
        kwargs = _with_loaded_components(index, folder, kwargs, generator_options)
        # The word of a model for that of its weights; diffusers passes words on where it has a mapping.
        kwargs["dtype"] = {"brain_model": dtype_of(kwargs["dtype"], "brain_model")}
        accompanying = read_accompanying(folder)
        record = _record_of(folder, kwargs.get("brain_model"), accompanying)
        reading = _is_read_whole.set(True)
        try:
            pipeline = super(FmriToImagePipeline, pipeline_class).from_pretrained(
                str(folder), use_safetensors=True, **{key: kwargs[key] for key in kwargs if key not in FETCH_OPTIONS}
            )
            pipeline.register_to_config(_name_or_path=path)
        except FmriModelsError:
            raise
        except (
            OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError, ImportError,
            AssertionError, MemoryError,
        ) as error:  # fmt: skip
            raise not_loaded(f"The pipeline in {one_line(path)}", error, kwargs) from error
        finally:
            _is_read_whole.reset(reading)
        if cls is not FmriToImagePipeline and not isinstance(pipeline, cls):
            raise FmriModelsError(
                f"{one_line(path)} holds a {type(pipeline).__name__}, not a {cls.__name__}; load it with "
                f"{type(pipeline).__name__} or FmriToImagePipeline."
            )
        if unseen_session is not None:
            pipeline.processor.unseen_session = unseen_session
        pipeline._accompanying, pipeline.training_record = accompanying, record
        pipeline._hub_options = {name: kwargs[name] for name in _GENERATOR_FETCH_OPTIONS if name in kwargs}
        pipeline._generator_dtype, pipeline._generator_variant = generator_options.values()
        pipeline._loaded_components = LoadedComponents.of(pipeline, given)
        return pipeline if device is None else pipeline.to(device)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Any:
        """A pipeline of the parts of another one, as in diffusers; how its brain model was trained goes along.

        Args:
            pipeline: A pipeline.
            **kwargs: Those of `DiffusionPipeline.from_pipe`: components and options in place of the other's, and
                `dtype`, which is float32 without.
        """
        take_dtype(kwargs, f"{cls.__name__}.from_pipe")
        reading = _is_read_whole.set(True)
        try:
            made: Any = super().from_pipe(pipeline, **kwargs)
        finally:
            _is_read_whole.reset(reading)
        if isinstance(pipeline, FmriToImagePipeline) and made.brain_model is pipeline.brain_model:
            made.training_record, made._accompanying = pipeline.training_record, dict(pipeline._accompanying)
            made._loaded_components = pipeline._loaded_components
            made._hub_options, made._generator_variant = dict(pipeline._hub_options), pipeline._generator_variant
        return made

    def register_to_config(self, **kwargs: Any) -> None:
        """Notes values with the pipeline; loaders of diffusers do so with the place that it was loaded from, last."""
        super().register_to_config(**kwargs)
        if not _is_read_whole.get() and kwargs.get("_name_or_path") is not None:
            self._take_what_lies_beside(Path(kwargs["_name_or_path"]))

    def _take_what_lies_beside(self, folder: Path) -> None:
        """What `from_pretrained` of this class reads besides, of a folder that `DiffusionPipeline` has loaded."""
        # The loader casts networks alone, and a generator is none.
        if self._image_generator is not None and self._image_generator.dtype != self.brain_model.dtype:
            self._image_generator.to(self.brain_model.dtype)
        if not (folder / INDEX_FILE).is_file():
            logger.warning(
                f"What the pipeline {one_line(folder)} was trained on is not known here, as DiffusionPipeline does not "
                f"fetch it; load it with FmriToImagePipeline.from_pretrained."
            )
            return
        stated = read_index(folder).get("image_generator_source")
        if stated is not None and self._source == resolved(parse_source(stated)):
            self._refer_to(parse_source(with_places(stated, folder)))
        self._accompanying = read_accompanying(folder)
        self.training_record = _record_of(folder, None, self._accompanying)
        self._loaded_components = LoadedComponents.of(self)


def _record_of(folder: Path, brain_model: Any, accompanying: dict[str, bytes]) -> TrainingRecord | None:
    """How a saved pipeline was trained; of weights that came later it says that nobody knows what they learned from.

    Args:
        folder: The pipeline's folder.
        brain_model: What the caller gives in the place of the saved model; None takes that.
        accompanying: Files that are saved with the pipeline again, the record among them.
    """
    record = TrainingRecord.load(folder)
    if record is not None and brain_model is not None:
        record.add_unknown(GIVEN_LATER)
    if record is not None and record.unknown_initial_models:
        accompanying[TRAINING_FILE] = record.to_json().encode()
    return record


def _no_longer_true(folder: Path, written: set[str]) -> list[str]:
    """What a save of other parts than before has no use for: also a report on those."""
    return [*no_longer_needed(folder, written), *report_finder()(folder)]


def _write_card_again(partial: Path, folder: Path) -> None:
    """Writes the model card anew, without figures, if there is one; who has the weights has stated their licence."""
    card = partial / CARD_FILE
    if not card.is_file() and (folder / CARD_FILE).is_file() and not is_foreign_card(folder / CARD_FILE):
        card.write_bytes((folder / CARD_FILE).read_bytes())
    if card.is_file():
        card_writer()(partial)


def _with_loaded_components(
    index: dict[str, Any], folder: Path, kwargs: dict[str, Any], generator_options: Mapping[str, Any]
) -> dict[str, Any]:
    """Loads what diffusers would not load as it was asked to: a generator, and a model with weights of a variant.

    It hands options on to networks alone, and looks for variants in flat components alone.

    Raises:
        FmriModelsError: No component has weights of the variant.
    """
    loaded = {key: value for key, value in kwargs.items() if key != "variant"}
    has_variant = _components_with_variant(index, folder, kwargs)
    if "image_generator" not in loaded:
        class_name = (index.get("image_generator") or [None, None])[1]
        generator_class = None if class_name is None else image_generator_of_class(class_name)
        if generator_class is not None:
            variant = generator_options["variant"] if "image_generator" in has_variant else None
            options: dict[str, Any] = {}
            options |= {name: kwargs[name] for name in ("low_cpu_mem_usage", "disable_mmap") if name in kwargs}
            options |= {"dtype": generator_options["dtype"], "variant": variant, "use_safetensors": True}
            loaded["image_generator"] = generator_class.from_pretrained(folder / "image_generator", **options)
    if "brain_model" in has_variant and "brain_model" not in loaded:
        model_class: Any = find_class(index["brain_model"][1])
        options = {"dtype": dtype_of(kwargs["dtype"], "brain_model"), "variant": kwargs["variant"]}
        loaded["brain_model"] = model_class.from_pretrained(folder / "brain_model", **options)
    return loaded


def _components_with_variant(index: Mapping[str, Any], folder: Path, kwargs: Mapping[str, Any]) -> set[str]:
    """Which saved components have weights of the variant that was asked for; none where none was.

    Raises:
        FmriModelsError: None has, although a component with weights is read from the folder.
    """
    variant = kwargs.get("variant")
    if variant is None:
        return set()
    saved = [name for name in ("brain_model", "image_generator") if name not in kwargs and (folder / name).is_dir()]
    names = {name: [file.name for file in (folder / name).rglob("*")] for name in saved}
    found = {name for name in saved if variant in variants_in(names[name])}
    # A generator that is named may have it, elsewhere.
    if not found and index.get("image_generator_source") is None:
        check_variant([name for each in names.values() for name in each], f"The pipeline in {folder}", variant)
    return found


def _pipeline_class(folder: Path, index: dict[str, Any]) -> type[FmriToImagePipeline]:
    name = index.get("_class_name")
    found = find_class(name) if isinstance(name, str) else None
    if found is None or not issubclass(found, FmriToImagePipeline):
        raise other_class(name, folder)
    for part in ("brain_model", "processor"):
        if not (folder / part).is_dir():
            raise FmriModelsError(
                f"{folder} has no {part}/, without which nothing can be decoded; save the pipeline again."
            )
    return found


def _interrupt(image_generator: ImageGenerator, step: int, timestep: torch.Tensor, tensors: Any) -> Any:
    """The callback of pictures whose drawing was interrupted before it began."""
    image_generator._interrupt = True
    return tensors


def _check_finite(values: torch.Tensor, what: str) -> None:
    if not torch.isfinite(values).all():
        raise FmriModelsError(
            f"{what} with NaN or infinite values: weights or betas are larger than any that were trained with, or "
            "overflow in this dtype; try float32, or another copy of the model."
        )


def _check_part(name: str, part: Any) -> None:
    """Refuses what can't be the component of that name; what is wrapped around a brain model has its configuration."""
    known = {
        "brain_model": (getattr(part, "config", None), FmriConfig, "a brain model of this package"),
        "processor": (part, FmriProcessor, "an FmriProcessor"),
        "image_generator": (part, ImageGenerator | None, "an ImageGenerator"),
    }
    judged, kind, what = known[name]
    if isinstance(judged, kind):
        return
    mend = "leave it out of from_pretrained() to load the saved one"
    if name == "image_generator":
        mend = "a name, folder or repository of one is given with image_generator_source="
    found = "None" if part is None else f"a {type(part).__name__}"
    raise FmriModelsError(f"{name} is {found}; expected {what}; {mend}.")


def _check_subjects(brain_model: FmriPreTrainedModel, processor: FmriProcessor) -> None:
    config = brain_model.config
    if not processor.is_fitted and not processor.subject_names:
        return
    if processor.subject_names != config.subject_names:
        raise FmriModelsError(
            f"The processor's subjects are {processor.subject_names} and the model's are {config.subject_names}; use "
            "the processor that the model was trained with (the order counts)."
        )
    if processor.is_fitted and processor.num_voxels != config.num_voxels:
        raise FmriModelsError(
            f"The processor gives {processor.num_voxels} voxels and the model reads {config.num_voxels}; use the "
            "processor that the model was trained with."
        )


def _check_spaces(brain_model: FmriPreTrainedModel, spaces: Mapping[str, EmbeddingSpace | None]) -> None:
    for kind, taken in spaces.items():
        decoded: EmbeddingSpace | None = brain_model.config.space(kind)
        if decoded is not None and taken is not None:
            decoded.require_equal(taken, "the brain model", "the image generator")


def _num_trials(decoding: FmriDecoding, num_candidates: int, stated: int | None) -> int:
    """The number of patterns that were decoded; what a method samples has `num_candidates` rows of each.

    Raises:
        FmriModelsError: Nothing was decoded, or the parts are of different numbers of patterns.
    """
    rows = {name: len(values) for name, values in decoding.items()}
    if not rows:
        raise FmriModelsError("Nothing was decoded: neither embeddings nor latents to draw from.")
    number = rows.get("retrieval_embeds", min(rows.values())) if stated is None else stated
    for name, found in rows.items():
        expected = [number] if name == "retrieval_embeds" else [number, number * num_candidates]
        if found not in expected:
            several = f" or {expected[-1]}" if expected[-1] > number else ""
            raise FmriModelsError(
                f"{name} has {found} rows for {number} patterns and num_candidates={num_candidates}; expected {number}"
                f"{several}: draw with the num_candidates that was decoded with."
            )
    return number


def _check_true_images(true_images: Any, number: int, image_generator: ImageGenerator) -> None:
    """Refuses true pictures that are not one of each pattern (a single one would be taken for that of all), or none.

    Whether there is anything to choose from does not matter.
    """
    found = tuple(true_images.shape) if isinstance(true_images, torch.Tensor) else type(true_images).__name__
    if not isinstance(true_images, torch.Tensor) or true_images.ndim != 4 or len(true_images) != number:
        raise FmriModelsError(
            f"true_images is {found} for {number} patterns; expected a tensor ({number}, C, H, W), the picture that "
            "belongs to each."
        )
    image_generator.check_images(true_images, any_size=image_generator.embeds_any_size)


def _repeat(values: torch.Tensor | None, num_trials: int, num_candidates: int) -> torch.Tensor | None:
    if values is None or len(values) == num_trials * num_candidates:
        return values
    return values[:: len(values) // num_trials].repeat_interleave(num_candidates, dim=0)
