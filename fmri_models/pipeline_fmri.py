"""FmriToImagePipeline: from voxels to pictures, written once for all methods."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from tqdm import tqdm
from transformers import BatchFeature

from .adapters import unwrapped
from .drawing_request import DrawingRequest
from .drawing_settings import Choice, DrawingSettings
from .errors import FmriModelsError
from .generation.generator_adapter import GeneratorAdapter
from .generation.image_generator import ImageGenerator
from .generation.loading import parse_source
from .generation.source import GeneratorSource
from .generation.step_callback import CallbackFunction, StepCallback
from .modeling_fmri import FmriPreTrainedModel
from .modeling_outputs import FmriDecoding
from .names import one_line
from .pipeline_components import check_component, check_subjects
from .pipeline_folder import INDEX_FILE, PIPELINE_SCHEMA
from .processing_fmri import FmriProcessor
from .progress import of_pipeline
from .saving import check_schema
from .seeds import checked_generators
from .stored_pipeline import StoredPipeline
from .version import __version__

_IMAGES_A_CHUNK = 64


@dataclass
class FmriPipelineOutput(BaseOutput):
    """Output of a pipeline.

    Args:
        images: One picture a pattern: PIL pictures, or an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1]; for
            `output_type="latent"`, the latents that they are decoded from.
        candidates: With several candidates, all of them, a list of `num_candidates` a pattern (of latents, a tensor a
            pattern); else None.
        scores: (N, num_candidates) similarity of each candidate to what the brain says; None without a choice.
        image_embeds: (N, …) decoded image embeddings; None if the method decodes none.
        low_level_images: The decoded low-level picture alone, like `images`; None if the method decodes no latents.
        text_embeds: (N, …) decoded text embeddings; None if the method decodes none.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    candidates: list[list[Image.Image]] | list[torch.Tensor] | None = None
    scores: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    low_level_images: list[Image.Image] | np.ndarray | torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None


class FmriToImagePipeline(StoredPipeline):
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
        untrained_generator_source: Where the image generator is as it was before it was trained together with the brain
            model; None where it was not trained, or where nobody else has it.
        image_generator_adapter: [`GeneratorAdapter`] that is put on the image generator, now or when it is loaded; None
            where it has none, or has it already. A saved pipeline's is brought by `from_pretrained`.

    Attributes:
        training_record: How a loaded pipeline was trained; None where that is not known.

    Example:
        >>> from fmri_models import FmriToImagePipeline
        >>> pipe = FmriToImagePipeline.from_pretrained("outputs/demo/pipeline")
        >>> image = pipe(betas, subject="subj01", session=3).images[0]
    """

    model_cpu_offload_seq = "brain_model"
    _optional_components = ["image_generator"]

    def __init__(
        self,
        brain_model: FmriPreTrainedModel,
        processor: FmriProcessor,
        image_generator: ImageGenerator | None = None,
        image_generator_source: str | Mapping[str, Any] | GeneratorSource | None = None,
        drawing_settings: DrawingSettings | Mapping[str, Any] | None = None,
        untrained_generator_source: str | Mapping[str, Any] | GeneratorSource | None = None,
        image_generator_adapter: GeneratorAdapter | str | None = None,
        fmri_schema: int = PIPELINE_SCHEMA,
        fmri_models_version: str = __version__,
    ) -> None:
        super().__init__()
        check_schema(fmri_schema, PIPELINE_SCHEMA, f"The pipeline's {INDEX_FILE}")
        brain_model = unwrapped(brain_model)
        check_component("brain_model", brain_model)
        check_component("processor", processor)
        check_subjects(brain_model, processor)
        self.register_modules(brain_model=brain_model, processor=processor)
        if isinstance(image_generator_adapter, str):
            raise FmriModelsError(
                f"The pipeline's image generator has an adapter in {one_line(image_generator_adapter, 80)}, which "
                "DiffusionPipeline does not load; load the pipeline with FmriToImagePipeline.from_pretrained."
            )
        if image_generator_adapter is not None and image_generator is not None:
            check_component("image_generator", image_generator)
            image_generator_adapter.put_on(image_generator)
        self._held.put(image_generator, brain_model)
        if image_generator_source is not None:
            self._held.refer_to(parse_source(image_generator_source), brain_model)
        if image_generator is None and image_generator_source is not None:
            self._held.adapter = image_generator_adapter
        self._register_image_generator()
        self._register_untrained_generator(untrained_generator_source)
        self.drawing_settings = self._held.drawing_settings.changed(drawing_settings)
        self.register_to_config(fmri_models_version=fmri_models_version)
        brain_model.eval()

    @property
    def drawing_settings(self) -> DrawingSettings:
        """What is drawn with where a call says nothing else; a mapping that is assigned replaces single values.

        Raises:
            FmriModelsError: Something else was registered under this name.
        """
        # Mappings that somebody has registered may be of some values, as `register_to_config` of diffusers has it.
        return self._held.drawing_settings.changed(self.config.drawing_settings)

    @drawing_settings.setter
    def drawing_settings(self, settings: DrawingSettings | Mapping[str, Any]) -> None:
        current = self.drawing_settings if "drawing_settings" in self.config else DrawingSettings()
        settings = current.changed(settings)
        self._held.check_settings(settings)
        self.register_to_config(drawing_settings=settings.to_dict())

    def settings_used(self, settings: DrawingSettings) -> dict[str, Any]:
        """Those of the settings that change what this pipeline draws, by name.

        A generator that draws nothing at random has no use for steps or guidance, and candidates of it are all the
        same, unless the method samples what they are drawn from. A weight of the text needs a method that decodes text
        and image.
        """
        return {name: value for name, value in settings.to_dict().items() if name in self._names_used}

    @property
    def _names_used(self) -> set[str]:
        """Names of the drawing settings that change something."""
        generator, used = self.image_generator, set[str]()
        if generator is not None and generator.generates_from_embeddings:
            used |= set(generator.used_settings)
            if self.brain_model.samples:
                used |= {"num_candidates", "selection"}
        return used if self.brain_model.config.decodes_image_and_text else used - {"text_to_image_ratio"}

    def warn_of_unused(self, given: Mapping[str, Any]) -> None:
        """One warning that names settings that were given and change nothing of what this pipeline draws."""
        used = self._names_used
        unused = [name for name, value in given.items() if value is not None and name not in used]
        if unused:
            have = "has" if len(unused) == 1 else "have"
            drawn_by = type(self.image_generator).__name__
            # What takes steps may well begin with noise.
            why = "" if used - {"strength"} else ", which draws nothing at random"
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
        text_to_image_ratio: float | None = None,
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
            text_to_image_ratio: Weight of the decoded text beside the decoded image, 0 (image alone) to 1 (text alone),
                where the method decodes both.

        Returns:
            [`FmriPipelineOutput`], or a tuple.

        Raises:
            FmriModelsError: The voxels do not fit the processor, or an option is out of range.
        """
        given: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "strength": strength,
            "num_candidates": num_candidates,
            "selection": selection,
            "text_to_image_ratio": text_to_image_ratio,
        }
        settings = self.check_inputs(**given, true_images=true_images, output_type=output_type)
        on_step_end = StepCallback(callback_on_step_end, callback_on_step_end_tensor_inputs, caller=self)
        request = DrawingRequest(settings, true_images, generator, output_type, on_step_end)
        self.warn_of_unused(given)
        inputs = self._processed(fmri, subject, session)
        features, subject_ids = inputs["fmri"], inputs["subject_ids"]
        request = request.of_patterns(len(features), self.image_generator)
        drawn_from = list(self.image_generator.guide_spaces)
        decoding = self.decode(features, subject_ids, settings.num_candidates, request.generator, guides=drawn_from)
        output = self.images_of(decoding, request, len(features))
        return output if return_dict else cast(Any, output.to_tuple())

    def _processed(self, fmri: Any, subject: Any, session: Any) -> BatchFeature:
        """What the processor makes of the patterns that a call was given: one row each.

        Raises:
            FmriModelsError: They do not fit the processor, or it does not fit the brain model any more.
        """
        # It may have been fitted or exchanged since the pipeline was made.
        check_subjects(self.brain_model, self.processor)
        inputs = self.processor(fmri, subject=subject, session=session)
        inputs["fmri"] = inputs["fmri"].reshape(-1, inputs["fmri"].shape[-1])
        if len(inputs["fmri"]) != len(inputs["subject_ids"]):
            raise FmriModelsError(
                f"The patterns have the shape {tuple(np.shape(fmri))}; expected (patterns, voxels), or one of "
                "(voxels,): a picture is drawn of each. Average repetitions of the processor's output and pass them to "
                "decode(), or give each its own row."
            )
        return inputs

    def check_inputs(
        self, *, true_images: torch.Tensor | None = None, output_type: str = "pil", **given: Any
    ) -> DrawingSettings:
        """What a call draws with; refuses options that make no sense, before any work.

        Args:
            true_images: As in the call.
            output_type: As in the call.
            given: The call's arguments that take the place of drawing settings, by name; None leaves a setting.

        Raises:
            FmriModelsError: Names the option, its value and the range.
        """
        selection = given.get("selection")
        if selection is not None and (not isinstance(selection, str) or selection not in ("oracle", *get_args(Choice))):
            raise FmriModelsError(
                f"selection is {one_line(repr(selection), 80)}; expected 'brain', 'first', or 'oracle' with "
                "true_images=."
            )
        if selection == "oracle" and true_images is None:
            raise FmriModelsError("selection='oracle' needs the true pictures; pass true_images=.")
        if selection != "oracle" and true_images is not None:
            raise FmriModelsError(
                "true_images= is read by selection='oracle' alone and would change nothing here; leave it out, or pass "
                "selection='oracle'."
            )
        settings = self.drawing_settings.changed(given | {"selection": None if selection == "oracle" else selection})
        self._check_output(output_type)
        self.image_generator.check_settings(settings)
        return settings

    def _check_output(self, output_type: str) -> None:
        """Refuses to draw without an image generator, or what it does not return."""
        if self.image_generator is None:
            raise FmriModelsError(
                "This pipeline has no image generator; load it with image_generator=, or take what is decoded: "
                "pipe.brain_model.decode(**pipe.processor(betas, subject=NAME))."
            )
        self.image_generator.check_output(output_type)

    @torch.no_grad()
    def decode(
        self,
        features: torch.Tensor,
        subject_ids: torch.Tensor,
        num_candidates: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        guides: Sequence[str] | None = None,
    ) -> FmriDecoding:
        """Decodes processed voxels (N, V); repetitions may have been averaged before.

        `guides` names the guides that are decoded, of a method that decodes some; None takes all.

        With one generator a pattern, what a method samples of a pattern comes from its own. A method that samples does
        so `num_candidates` times, or as often as the pipeline's settings say.
        """
        self.brain_model.check_decodes_alone()
        num_candidates = self.drawing_settings.changed({"num_candidates": num_candidates}).num_candidates
        generator = checked_generators(generator, len(features))
        chosen = {"guides": guides} if self.brain_model.config.guide_spaces else {}
        device = self._execution_device
        # On an accelerator nobody reads ids any more.
        subject_ids = self.brain_model.subject_indices(subject_ids, features.shape[0])
        features, subject_ids = features.to(device), subject_ids.to(device)
        try:
            decoding = self.brain_model.decode(
                features, subject_ids, num_candidates=num_candidates, generator=generator, **chosen
            )
        finally:
            self.maybe_free_model_hooks()
        for name, values in decoding.tensors.items():
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
        text_to_image_ratio: float | None = None,
    ) -> FmriPipelineOutput:
        """Draws, ranks and chooses pictures from what was decoded; the arguments are those of `__call__`.

        `num_patterns` says how many patterns were decoded, which nothing else does where a method gives nothing but
        several samples of each.

        Raises:
            FmriModelsError: What was decoded, the generators and the true pictures are not of the same patterns.
        """
        settings = self.check_inputs(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            strength=strength,
            num_candidates=num_candidates,
            selection=selection,
            text_to_image_ratio=text_to_image_ratio,
            true_images=true_images,
            output_type=output_type,
        )
        on_step_end = StepCallback(callback_on_step_end, callback_on_step_end_tensor_inputs, caller=self)
        request = DrawingRequest(settings, true_images, generator, output_type, on_step_end)
        output = self.images_of(decoding, request, num_patterns)
        return output if return_dict else cast(Any, output.to_tuple())

    @torch.no_grad()
    def images_of(
        self, decoding: FmriDecoding, request: DrawingRequest, num_patterns: int | None = None
    ) -> FmriPipelineOutput:
        """Draws, ranks and chooses pictures: `generate`, given an object in the place of arguments.

        Args:
            decoding: What was decoded.
            request: How pictures are drawn and chosen, and what is returned of them.
            num_patterns: As in `generate`.

        Raises:
            FmriModelsError: As in `generate`.
        """
        self._check_output(request.output_type)
        num_patterns = _num_patterns(decoding, request.settings.num_candidates, num_patterns)
        request = request.of_patterns(num_patterns, self.image_generator)
        candidates = self._candidates(decoding, request, num_patterns)
        _check_finite(candidates, "The image generator draws pictures")
        scores = self._scores(candidates, decoding, request)
        chosen = (
            candidates[torch.arange(len(candidates)), scores.argmax(dim=1)] if scores is not None else candidates[:, 0]
        )
        low_level = self._low_level(decoding, request.output_type)
        postprocess = self.image_generator.postprocess
        shown = "latent" if request.output_type == "latent" else "pil"
        several = candidates.shape[1] > 1
        return FmriPipelineOutput(
            images=postprocess(chosen, request.output_type).images,
            candidates=[postprocess(each, shown).images for each in candidates] if several else None,
            scores=scores,
            image_embeds=decoding.image_embeds,
            text_embeds=decoding.text_embeds,
            low_level_images=None if low_level is None else postprocess(low_level, request.output_type).images,
        )

    def _candidates(self, decoding: FmriDecoding, request: DrawingRequest, num_patterns: int) -> torch.Tensor:
        """(N, K, C, H, W) pictures or latents, drawn in chunks that fit into memory."""
        image_generator = self.image_generator
        # What is decoded and not drawn from is an output like embeddings for retrieval.
        conditions = decoding.conditions.only_guides(image_generator.guide_spaces)
        num_candidates = request.settings.num_candidates
        if not image_generator.generates_from_embeddings:
            # Several draws differ only where a generator samples; otherwise one is all there is.
            conditions, num_candidates = conditions.only("latents"), 1
        elif "num_candidates" not in self.settings_used(request.settings) and conditions.are_of(num_patterns):
            num_candidates = 1
        if not conditions.tensors:
            # What was decoded is for retrieval alone; a picture that is drawn from nothing would be none of it.
            image_generator.accept(conditions).count(type(image_generator).__name__)
        conditions = conditions.repeated(num_patterns, num_candidates)
        output_type = "latent" if request.output_type == "latent" else "pt"
        sources, on_step_end = request.generator, request.on_step_end
        if isinstance(sources, list):
            sources = [source for source in sources for _ in range(num_candidates)]
        drawn = []
        with self.progress_bar(total=len(conditions)) as progress:
            for start in range(0, len(conditions), _IMAGES_A_CHUNK):
                chunk = slice(start, start + _IMAGES_A_CHUNK)
                of_chunk = sources[chunk] if isinstance(sources, list) else sources
                output = image_generator.images_of(
                    conditions[chunk],
                    settings=request.settings,
                    generators=of_chunk,
                    output_type=output_type,
                    on_step_end=on_step_end,
                )
                drawn.append(output.images)
                if self.interrupt:
                    # Of pictures that had not begun, nothing more is denoised than one step.
                    on_step_end = StepCallback(_interrupt)
                progress.update(len(output.images))
        pictures = torch.cat(drawn)
        return pictures.reshape(num_patterns, num_candidates, *pictures.shape[1:])

    def _scores(self, candidates: torch.Tensor, decoding: FmriDecoding, request: DrawingRequest) -> torch.Tensor | None:
        """(N, K) cosine similarity of each candidate's embedding to the reference; None if there is nothing to rank."""
        if candidates.shape[1] == 1 or request.selection == "first":
            return None
        if request.selection == "oracle":
            reference = self.image_generator.embed_images(request.true_images)
        elif decoding.retrieval_embeds is not None and self.image_generator.image_embedding_space is not None:
            reference = decoding.retrieval_embeds
        else:
            return None
        pictures = candidates.flatten(0, 1)
        if request.output_type == "latent":
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
        generator, chunks = self.image_generator, latents.split(_IMAGES_A_CHUNK)
        said = {name: getattr(generator, name) for name in ("_guidance_scale", "_num_timesteps", "_interrupt")}
        pictures = torch.cat([generator(latents=chunk, strength=0.0, output_type="pt").images for chunk in chunks])
        for name, value in said.items():
            setattr(generator, name, value)
        return pictures

    @torch.compiler.disable
    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> tqdm:
        """A bar that says what is drawn, by `set_progress_bar_config`; a line now and then where output is a file."""
        return of_pipeline(self, "Drawing pictures", iterable, total, "picture")


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


def _num_patterns(decoding: FmriDecoding, num_candidates: int, stated: int | None) -> int:
    """The number of patterns that were decoded; what a method samples has `num_candidates` of each.

    Raises:
        FmriModelsError: Nothing was decoded, or tensors of different numbers of patterns were.
    """
    lengths = {name: len(values) for name, values in decoding.tensors.items()}
    if not lengths:
        raise FmriModelsError("Nothing was decoded: neither embeddings nor latents to draw from.")
    number = lengths.get("retrieval_embeds", min(lengths.values())) if stated is None else stated
    for name, found in lengths.items():
        expected = [number] if name == "retrieval_embeds" else [number, number * num_candidates]
        if found not in expected:
            several = f" or {expected[-1]}" if expected[-1] > number else ""
            raise FmriModelsError(
                f"{name} has {found} rows for {number} patterns and num_candidates={num_candidates}; expected {number}"
                f"{several}: draw with the num_candidates that was decoded with."
            )
    return number
