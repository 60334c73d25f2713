"""The base class of all brain models."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .hub_repository import (
    FETCH_OPTIONS,
    fetch_options,
    local_folder,
    split_push_options,
    upload_saved,
    weights_patterns,
)
from .modeling_outputs import FmriDecoding
from .names import did_you_mean, one_line
from .reading import read_object
from .retrieval import DEFAULT_TOP_K, Embeddings, Query, Retrieved, retrieve
from .saving import merged_folder, weights_no_longer_needed
from .swapping import recover, written_files
from .weights import check_finite, check_model_folder, stored_tensors_of

INDEX_FILE = "model_index.json"
CONFIG_FILE = "config.json"
_ADAPTER_FILE = "adapter_config.json"
# Arguments of transformers' own `save_pretrained`, some of them of earlier versions, and the usual ones for loading.
_SAVE_OPTIONS = (
    "distributed_checkpoint", "safe_serialization", "save_function", "save_original_format", "save_peft_format",
    "state_dict",
)  # fmt: skip
_LOAD_OPTIONS = (*FETCH_OPTIONS, "device_map", "dtype", "output_loading_info", "subfolder", "torch_dtype", "variant")
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
SubjectIds = torch.Tensor | Sequence[int] | Sequence[str] | str | None


class FmriPreTrainedModel(PreTrainedModel):
    """A network from voxels to the space that an image generator understands.

    A subclass implements `forward` (training) and [`~FmriPreTrainedModel.decode`] (inference).
    """

    config: FmriConfig
    config_class = FmriConfig
    base_model_prefix = "brain_model"
    main_input_name = "fmri"

    @classmethod
    def from_original(cls, checkpoint: str | os.PathLike | dict[str, torch.Tensor], **config_overrides: Any) -> Any:
        """Reads the checkpoint layout of the original publication.

        Raises:
            FmriModelsError: The method has no published checkpoint layout.
        """
        raise FmriModelsError(f"{cls.__name__} has no published checkpoint layout; use from_pretrained.")

    @property
    def samples(self) -> bool:
        """Whether `decode` may draw samples; a method that never does says so, for its candidates are all the same."""
        return True

    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> FmriDecoding:
        """Decodes processed voxels.

        Args:
            fmri: (B, V) float, as the processor gives it: zero-padded to the widest subject.
            subject_ids: (B,) indices into `config.subject_names` or the names themselves; None if there is one subject.
            num_candidates: How many samples to draw where the method samples.
            generator: Source of the noise of these samples.
        """
        raise NotImplementedError(f"{type(self).__name__} implements no decode().")

    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> torch.Tensor:
        """Decodes what is compared with the embeddings of pictures; nothing is sampled where a method need not.

        Args:
            fmri: (B, V) float, as the processor gives it.
            subject_ids: (B,) indices or names; None if there is one subject.

        Returns:
            (B, …) float.

        Raises:
            FmriModelsError: The method has none.
        """
        embeds = self.decode(fmri, subject_ids).retrieval_embeds
        if embeds is None:
            raise FmriModelsError(
                f"This {type(self).__name__} decodes no embeddings that can be compared with pictures, so it can't "
                "retrieve; train it with image_embeds among its targets."
            )
        return embeds

    @torch.no_grad()
    def retrieve(
        self,
        fmri: torch.Tensor,
        gallery: Embeddings,
        subject_ids: SubjectIds = None,
        top_k: int | None = None,
        query: Query = "brain",
    ) -> Retrieved:
        """Finds pictures by what was decoded from brain responses, or responses by pictures: exactly, in bounded
        memory.

        The direction is named by its query. `"brain"`: each response looks for its picture in the gallery; the papers
        print how often it is found in the column "Brain", and MindEye's code calls it "bwd". `"image"`: each picture of
        the gallery looks for its response; the column "Image", "fwd" in the code.

        Args:
            fmri: (B, V) float, as the processor gives it.
            gallery: (M, …) embeddings of pictures in the model's space: a tensor or array, which may be memory-mapped
                and of half precision. Pictures that occur several times take several places, the first one first.
            subject_ids: (B,) indices or names; None if there is one subject.
            top_k: How many of the most similar to return; None for five, or all where there are fewer.
            query: Which side asks.

        Returns:
            [`Retrieved`]: cosine similarities and indices, (B, top_k) into the gallery for `"brain"`, (M, top_k) into
            `fmri` for `"image"`.

        Raises:
            FmriModelsError: The method has no embeddings for retrieval, the gallery is of another size, or `top_k` is
                out of range.
        """
        if query not in ("brain", "image"):
            raise FmriModelsError(f"query is {query!r}; expected 'brain' or 'image'.")
        embeds = self.retrieval_embeds(fmri, subject_ids).flatten(1)
        space = self.config.space("image_embedding_space")
        found = gallery.reshape(len(gallery), -1).shape[1] if len(gallery) else 0
        if space is not None and found != space.size:
            raise FmriModelsError(
                f"The gallery has {len(gallery)} embeddings of {found} values; this model's have {space.size} "
                f"({space.encoder}, {space.layer}); embed the pictures with the model's image generator."
            )
        if top_k is None:
            top_k = min(DEFAULT_TOP_K, len(gallery) if query == "brain" else len(embeds))
        return retrieve(embeds, gallery, top_k) if query == "brain" else retrieve(gallery, embeds, top_k)

    def subject_indices(self, subject_ids: SubjectIds, batch_size: int, device: torch.device) -> torch.Tensor:
        """Subjects in any form as (B,) long indices into `config.subject_names`.

        Raises:
            FmriModelsError: A subject is unknown, the number differs from the batch size, or none is given while the
                model has several.
        """
        names = self.config.subject_names
        if subject_ids is None:
            if len(names) != 1:
                raise FmriModelsError(
                    f"This model has the subjects {', '.join(names)}; say with subject_ids whose voxels these are."
                )
            return torch.zeros(batch_size, dtype=torch.long, device=device)
        if isinstance(subject_ids, str):
            subject_ids = [subject_ids] * batch_size
        if not isinstance(subject_ids, torch.Tensor):
            indices = [self.config.subject_index(s) if isinstance(s, str) else int(s) for s in subject_ids]
            subject_ids = torch.tensor(indices)
        if subject_ids.shape != (batch_size,):
            raise FmriModelsError(
                f"subject_ids has shape {tuple(subject_ids.shape)} for a batch of {batch_size}; give one id a row."
            )
        if len(subject_ids) and (subject_ids.min() < 0 or subject_ids.max() >= len(names)):
            raise FmriModelsError(
                f"subject_ids reaches from {int(subject_ids.min())} to {int(subject_ids.max())}; this model has "
                f"{len(names)} subjects, with ids from 0 to {len(names) - 1}."
            )
        return subject_ids.to(device=device, dtype=torch.long)

    def check_fmri(self, fmri: torch.Tensor) -> None:
        """Refuses voxels that did not come through this model's processor.

        Raises:
            FmriModelsError: `fmri` is not (B, widest subject).
        """
        width = max(self.config.num_voxels)
        if fmri.ndim != 2 or fmri.shape[1] != width:
            raise FmriModelsError(
                f"{type(self).__name__} takes processed voxels of shape (batch, {width}); got {tuple(fmri.shape)}; "
                "pass betas through the model's FmriProcessor first."
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Loads a model from a folder or a Hub repository, with every weight that it needs.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            *model_args: Those of `PreTrainedModel.from_pretrained`.
            **kwargs: Likewise, such as `subfolder`, `revision`, `variant`, `dtype`.

        Raises:
            FmriModelsError: There is no model, or its weights are missing, unexpected, of another shape or type, or not
                finite; they are named. Weights in other formats than safetensors are not read.
        """
        if pretrained_model_name_or_path is None or kwargs.get("gguf_file") is not None:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        if kwargs.pop("use_safetensors", None) is False:
            raise FmriModelsError(
                "Weights are read from safetensors alone, because others could run code; convert them."
            )
        folder = _local_folder(str(pretrained_model_name_or_path), kwargs)
        recover(folder)
        try:
            cls._check_saved_weights(folder / (kwargs.get("subfolder") or ""), kwargs)
            loaded = super().from_pretrained(folder, *model_args, use_safetensors=True, **kwargs)
        except FmriModelsError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
            # What transformers does not know, it gives to the constructor.
            if (unknown := _UNEXPECTED.search(str(error))) and unknown[1] in kwargs:
                config_class: Any = cls.config_class
                hint = did_you_mean(unknown[1], [*_LOAD_OPTIONS, *config_class.own_fields()])
                raise FmriModelsError(f"{cls.__name__}.from_pretrained takes no {unknown[1]!r}.{hint}") from error
            raise FmriModelsError(
                f"The model in {one_line(pretrained_model_name_or_path)} can't be loaded ({one_line(error)}); save or "
                "download it again if it was changed."
            ) from error
        # With output_loading_info there are two. Adapters name their base by this, and not by a folder of the cache.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return loaded

    @classmethod
    def _check_saved_weights(cls, folder: Path, kwargs: dict[str, Any]) -> None:
        """Compares the saved weights with those of the network, unless the caller gives other weights."""
        if kwargs.get("state_dict") is not None:
            return
        if (folder / INDEX_FILE).is_file() and not (folder / CONFIG_FILE).exists():
            raise FmriModelsError(
                f"{one_line(folder)} is a whole pipeline; load its model with subfolder='brain_model', or all of it "
                "with FmriToImagePipeline."
            )
        if (folder / _ADAPTER_FILE).exists() and is_peft_available():
            folder = _base_of_adapter(folder, kwargs)
        config = kwargs.get("config")
        check_model_folder(
            cls,
            folder,
            f"The brain model in {one_line(folder)}",
            config if isinstance(config, FmriConfig) else None,
            kwargs.get("variant"),
            any_shape=bool(kwargs.get("ignore_mismatched_sizes")),
        )

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        max_shard_size: int | str = "2GB",
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Saves configuration and weights: files of these names are replaced together, everything else stays.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes; the others of a distributed training do nothing.
            max_shard_size: Size of one weights file.
            variant: Part of the names of the weights files, such as `"fp16"`.
            push_to_hub: Upload what was written, too, to `repo_id` or the folder's name.
            **kwargs: Those of `PreTrainedModel.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: The system refuses to write, or the Hub to take it.
        """
        if not is_main_process:
            return
        push_options = split_push_options(kwargs, _SAVE_OPTIONS)
        with merged_folder(save_directory, weights_no_longer_needed) as partial:
            self._write_pretrained(partial, max_shard_size=max_shard_size, variant=variant, **kwargs)
            files = written_files(partial)
        if push_to_hub:
            upload_saved(save_directory, files, "model", push_options)

    def _write_pretrained(self, folder: Path, **kwargs: Any) -> None:
        """Writes configuration and weights into an empty folder."""
        super().save_pretrained(folder, **kwargs)


def _base_of_adapter(folder: Path, kwargs: dict[str, Any]) -> Path:
    """Checks a PEFT adapter's tensors, and gives the folder of the weights that it is put on."""
    mend = "save the adapter again, or remove it"
    base = read_object(folder / _ADAPTER_FILE, "adapter's configuration", mend).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise FmriModelsError(f"The adapter in {one_line(folder)} names no model that it belongs to; {mend}.")
    weights = folder / "adapter_model.safetensors"
    check_finite(stored_tensors_of(weights, "The adapter"), f"The adapter in {one_line(folder)}")
    given = {name: kwargs[name] for name in FETCH_OPTIONS if name in kwargs and name != "revision"}
    return _local_folder(base, given)


def _local_folder(name_or_path: str, kwargs: dict[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the model."""
    prefix = f"{kwargs['subfolder']}/" if kwargs.get("subfolder") else ""
    patterns = [f"{prefix}{name}" for name in (CONFIG_FILE, _ADAPTER_FILE, "adapter_model.safetensors")]
    patterns += weights_patterns(prefix, kwargs.get("variant"))
    return local_folder(name_or_path, patterns, **fetch_options(kwargs))
