"""The base class of all brain models."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import LoadStateDictInfo
from transformers.utils import logging

from .adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILES,
    adapters_of,
    base_of,
    base_state,
    check_adapter,
    check_own_patterns,
    has_adapter_layers,
    put_adapter,
    switch_on_copies,
    unwrapped,
)
from .component_index import package_on_card, what_lies_in
from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .hub_repository import (
    FETCH_OPTIONS,
    fetch_options,
    is_folder,
    list_files,
    local_folder,
    split_push_options,
    upload_saved,
    weights_patterns,
)
from .known_classes import find_model
from .library_options import LOADING_ERRORS, checked_device, not_loaded, refuse_pickles, take_dtype
from .model_subjects import HasSubjects
from .modeling_outputs import FmriDecoding
from .names import did_you_mean, one_line
from .offloading import weights_in_place, with_hooks
from .reading import read_object
from .remote_code import LoadedByItsPackage, PushedWithCode, additions
from .retrieval import DEFAULT_TOP_K, Embeddings, Query, Retrieved, retrieve
from .saving import merged_folder, weights_no_longer_needed
from .subject_adapters import (
    SUBJECT_ADAPTER_FILES,
    SUBJECT_ADAPTERS,
    adapted_subjects,
    as_first_adapter,
    by_adapter,
    check_only_of_subjects,
    read_subject_adapter,
    read_subject_adapters,
    reads_rows_of_subjects,
    write_subject_adapter,
    write_subject_adapters,
)
from .swapping import recover, written_files
from .traced import becomes_a_graph
from .weights import MEND, check_model_folder, check_variant, check_variant_name, variants_in

logger = logging.get_logger(__name__)

INDEX_FILE = "model_index.json"
CONFIG_FILE = "config.json"
# Arguments of transformers' own `save_pretrained`, some of them of earlier versions, and the usual ones for loading.
_SAVE_OPTIONS = (
    "distributed_checkpoint", "safe_serialization", "save_function", "save_original_format", "save_peft_format",
    "state_dict",
)  # fmt: skip
_LOAD_OPTIONS = (*FETCH_OPTIONS, "device_map", "dtype", "output_loading_info", "subfolder", "torch_dtype", "variant")
# What a device_map says that is no device.
_PLACES = ("auto", "balanced", "balanced_low_0", "sequential", "disk")
# Those that forward calls itself find what it has brought.
_COMPUTING_METHODS = {"decode", "retrieval_embeds", "sample"}
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
# True is no subject, and neither is 1.5.
_WHOLE_NUMBERS = frozenset(
    {torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64}
)
# Python can go through these, too: without an order, or byte by byte.
_NOT_A_ROW_EACH = (bytes, bytearray, dict, set, frozenset)
SubjectIds = torch.Tensor | Sequence[int] | Sequence[str] | str | None


class FmriPreTrainedModel(LoadedByItsPackage, PushedWithCode, HasSubjects, PreTrainedModel):
    """A network from voxels to the space that an image generator understands.

    A subclass implements `forward` (training) and [`~FmriPreTrainedModel.decode`] (inference).
    """

    config: FmriConfig
    config_class = FmriConfig
    base_model_prefix = "brain_model"
    main_input_name = "fmri"
    # Whether weights belong to subjects; a method that reads all of them by the same says no.
    has_subject_layers: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What is called beside forward has to find weights that are kept elsewhere, whoever writes the method.
        for name in _COMPUTING_METHODS & cls.__dict__.keys():
            setattr(cls, name, with_hooks(cls.__dict__[name]))
        # Rows of subjects with adapters of their own are computed with these.
        names = ["decode", "retrieval_embeds"]
        if "forward" in cls.__dict__ and reads_rows_of_subjects(cls.__dict__["forward"]):
            names.append("forward")
        for name in names:
            if name in cls.__dict__:
                setattr(cls, name, by_adapter(cls.__dict__[name]))

    @classmethod
    def from_original(cls, checkpoint: str | os.PathLike | dict[str, torch.Tensor], **config_overrides: Any) -> Any:
        """Reads the checkpoint layout of the original publication.

        Raises:
            FmriModelsError: The method has no published checkpoint layout.
        """
        raise FmriModelsError(f"{cls.__name__} has no published checkpoint layout; use from_pretrained.")

    def take_weights(self, initial: Self) -> None:
        """Begins with the weights of another model of its class, before training.

        Args:
            initial: Of the same subjects, voxels and spaces where weights belong to subjects; of any others where the
                class says that none do.

        Raises:
            RuntimeError: It has other parts or sizes.
        """
        self.load_state_dict(initial.state_dict())

    def write_subject_adapter(self, name: str, folder: Path, dtype: torch.dtype | None = None) -> bool:
        """Writes the LoRA of a subject on shared weights, if it has one; as in `HasSubjects`."""
        if name not in adapted_subjects(self):
            return False
        write_subject_adapter(self, name, folder, dtype)
        return True

    def read_subject_adapter(self, name: str, folder: Path) -> None:
        """Puts the LoRA of a subject on the shared weights; as in `HasSubjects`."""
        read_subject_adapter(self, name, folder)

    @property
    def samples(self) -> bool:
        """Whether `decode` may draw samples; a method that never does says so, for its candidates are all the same."""
        return True

    @property
    def is_transductive(self) -> bool:
        """Whether what it decodes is complete only after [`restandardised`] has seen a whole test set.

        Evaluation then decodes all items of a subject and marks its report; a pipeline refuses to decode.
        """
        return False

    def check_decodes_alone(self) -> None:
        """Refuses to decode patterns that are no whole test set, where what is decoded depends on all of it.

        Raises:
            FmriModelsError: [`is_transductive`].
        """
        if self.is_transductive:
            raise FmriModelsError(
                "This model standardises its predictions with statistics of the whole test set (restandardise: test), "
                "of which a call knows a part; evaluate it with `fmri-models evaluate`, or train with restandardise: "
                "train or none."
            )

    def restandardised(self, decoding: FmriDecoding, subject_ids: SubjectIds = None) -> FmriDecoding:
        """What was decoded of a whole test set, with what depends on all of it.

        Args:
            decoding: Of B patterns, all there are.
            subject_ids: (B,) indices or names; None if there is one subject.

        Raises:
            FmriModelsError: There are too few patterns.
        """
        return decoding

    @property
    def attended_columns(self) -> int | None:
        """How many neighbouring columns of a processed pattern each token of `attentions` is made of.

        A method says so whose `forward(…, output_attentions=True)` returns, for each layer, weights (B, heads, N, N) of
        tokens that are a pattern's columns one after the other, without others such as a class token: reports then have
        attention by ROI. None, as here, for all others.
        """
        return None

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
        self.check_decodes_alone()
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

    def subject_indices(
        self, subject_ids: SubjectIds, batch_size: int, device: torch.device | None = None
    ) -> torch.Tensor:
        """Subjects in any form as (B,) long indices into `config.subject_names`.

        A tensor on an accelerator is not read, because the host would wait for it, nor is one in a graph that is
        compiled, exported or traced. Who makes such a tensor checks it where it still is on the CPU; what is computed
        of an id that is none is NaN, and never another subject's.

        Args:
            subject_ids: (B,) indices, names, one name for all, or None if there is one subject.
            batch_size: B.
            device: Where the indices go; None leaves them where they are, those of names on the CPU.

        Raises:
            FmriModelsError: A subject is unknown, an id is no whole number, the number differs from the batch size, or
                none is given while the model has several.
        """
        names = self.config.subject_names
        if subject_ids is None:
            if len(names) != 1:
                raise FmriModelsError(
                    f"This model has the subjects {', '.join(names)}; say with subject_ids whose voxels these are."
                )
            return torch.zeros(batch_size, dtype=torch.long, device=device)
        if isinstance(subject_ids, str):
            return torch.full((batch_size,), self.config.subject_index(subject_ids), dtype=torch.long, device=device)
        if not isinstance(subject_ids, torch.Tensor):
            subject_ids = torch.tensor(self._indices(subject_ids), dtype=torch.long)
        if subject_ids.dtype not in _WHOLE_NUMBERS:
            raise _no_id(f"values of {subject_ids.dtype}")
        if subject_ids.shape != (batch_size,):
            raise FmriModelsError(
                f"subject_ids has shape {tuple(subject_ids.shape)} for a batch of {batch_size}; give one id a row."
            )
        if subject_ids.device.type == "cpu" and not becomes_a_graph():
            self._check_range(subject_ids.tolist())
        return subject_ids.to(device=device, dtype=torch.long)

    def _indices(self, subject_ids: Any) -> list[int]:
        is_one = not hasattr(subject_ids, "__iter__") or getattr(subject_ids, "ndim", None) == 0
        if is_one or isinstance(subject_ids, _NOT_A_ROW_EACH):
            raise _no_id(one_line(repr(subject_ids), 80))
        indices = [self._index(each) for each in subject_ids]
        self._check_range(indices)
        return indices

    def _index(self, subject_id: Any) -> int:
        if isinstance(subject_id, str):
            return self.config.subject_index(subject_id)
        # Of NumPy and PyTorch.
        index = subject_id.item() if getattr(subject_id, "ndim", None) == 0 else subject_id
        if isinstance(index, bool) or not isinstance(index, int):
            raise _no_id(one_line(repr(index), 80))
        return index

    def _check_range(self, indices: Sequence[int]) -> None:
        names = self.config.subject_names
        if len(indices) and not 0 <= min(indices) <= max(indices) < len(names):
            raise FmriModelsError(
                f"subject_ids reaches from {min(indices)} to {max(indices)}; this model has {len(names)} subjects, "
                f"with ids from 0 to {len(names) - 1}."
            )

    def warn_of_no_attentions(self, output_attentions: bool | None) -> None:
        """Says that this forward computes no attention weights, if they were asked for."""
        if output_attentions:
            logger.warning_once(f"{type(self).__name__} computes no attention weights in its forward and returns none.")

    def enable_input_require_grads(self) -> None:
        """Lets gradients reach what goes in, as PEFT asks for before checkpointing: voxels are numbers, not tokens."""

        def require(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if args:
                return (_requiring_grad(args[0]), *args[1:]), kwargs
            name = self.main_input_name
            return args, {**kwargs, name: _requiring_grad(kwargs[name])} if name in kwargs else kwargs

        self._require_grads_hook = self.register_forward_pre_hook(require, with_kwargs=True)
        self._require_grads_hooks = [self._require_grads_hook]

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
        refuse_pickles(kwargs)
        what = f"{cls.__name__}.from_pretrained"
        take_dtype(kwargs, what)
        _check_device_map(kwargs.get("device_map"), what)
        folder = _local_folder(str(pretrained_model_name_or_path), kwargs)
        recover(folder)
        # Of an adapter in a subfolder, transformers would look for the base beside the subfolder.
        subfolder = kwargs.pop("subfolder", None) or ""
        folder = folder / subfolder
        place = str(pretrained_model_name_or_path)
        own_class = cls._class_of(folder, kwargs.get("config"))
        if cls is FmriPreTrainedModel and own_class is not cls:
            return own_class.from_pretrained(place, *model_args, subfolder=subfolder, **kwargs)
        try:
            prefixes = cls._check_saved_weights(folder, kwargs, place, subfolder)
            loaded = super().from_pretrained(
                folder, *model_args, use_safetensors=True, **_with_names_of_today(kwargs, prefixes)
            )
        except FmriModelsError:
            raise
        except LOADING_ERRORS as error:
            if isinstance(error, RuntimeError) and torch.get_default_device().type == "meta":
                # What is wrong is the caller's device and not the folder, and the message says so.
                raise
            # What transformers does not know, it gives to the constructor.
            if (unknown := _UNEXPECTED.search(str(error))) and unknown[1] in kwargs:
                config_class: Any = cls.config_class
                hint = did_you_mean(unknown[1], [*_LOAD_OPTIONS, *config_class.own_fields()])
                raise FmriModelsError(f"{cls.__name__}.from_pretrained takes no {unknown[1]!r}.{hint}") from error
            raise not_loaded(f"The model in {one_line(place)}", error, kwargs) from error
        # With output_loading_info there are two. Adapters name their base by this, and not by a folder of the cache.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if prefixes:
            _forget_former_names(model, prefixes)
        place = os.path.join(place, subfolder) if subfolder and is_folder(place) else place
        model.name_or_path = model.config.name_or_path = place
        read_subject_adapters(model, folder)
        return loaded

    @classmethod
    def _class_of(cls, folder: Path, config: Any) -> Any:
        """The class that a folder's configuration is of, as the registry knows it; this one where nothing says so.

        Raises:
            FmriModelsError: It is another one's, or the folder holds something else than a network.
        """
        if not (folder / CONFIG_FILE).exists():
            if (folder / INDEX_FILE).is_file() and (folder / "brain_model").is_dir():
                raise FmriModelsError(
                    f"{one_line(folder)} is a whole pipeline; load its model with subfolder='brain_model', or all of "
                    "it with FmriToImagePipeline."
                )
            if folder.is_dir() and not (folder / ADAPTER_CONFIG_FILE).exists() and (found := what_lies_in(folder)):
                raise FmriModelsError(f"{one_line(folder)} {found}; {cls.__name__} is a brain model's class.")
            return cls
        if isinstance(config, FmriConfig):
            return cls
        model_type = read_object(folder / CONFIG_FILE, "configuration", MEND).get("model_type")
        own = getattr(cls.config_class, "model_type", None)
        if model_type == own or not isinstance(model_type, str):
            return cls
        found = find_model(model_type)
        if cls is FmriPreTrainedModel and found is not None:
            return found
        if found is None:
            raise FmriModelsError(
                f"{one_line(folder)} holds a network of the type {one_line(model_type, 80)!r}, which is of no method "
                "here; if another package has the method, install or import that package first"
                f"{package_on_card(folder)}."
            )
        raise FmriModelsError(
            f"{one_line(folder)} holds a {found.__name__} and no {cls.__name__}; load it with {found.__name__} or "
            "AutoModel."
        )

    @classmethod
    def _check_saved_weights(cls, folder: Path, kwargs: dict[str, Any], place: str, subfolder: str) -> dict[str, str]:
        """Compares the saved weights with those of the network, unless the caller gives other weights.

        Returns:
            Beginnings of stored names that are others today ▶ those of today.
        """
        if kwargs.get("state_dict") is not None:
            return {}
        if (folder / ADAPTER_CONFIG_FILE).exists():
            check_adapter(folder)
            if not (folder / CONFIG_FILE).exists():
                given = {name: kwargs[name] for name in FETCH_OPTIONS if name in kwargs and name != "revision"}
                folder = _local_folder(base_of(folder), given)
        config = kwargs.get("config")
        what = f"The brain model in {one_line(folder)}"
        check_variant(_names_of_weights(folder, place, subfolder, kwargs), what, kwargs.get("variant"))
        return check_model_folder(
            cls,
            folder,
            what,
            config if isinstance(config, FmriConfig) else None,
            kwargs.get("variant"),
            any_shape=bool(kwargs.get("ignore_mismatched_sizes")),
            key_mapping=kwargs.get("key_mapping"),
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
            FmriModelsError: The variant is no name, the system refuses to write, or the Hub to take it.
        """
        if not is_main_process:
            return
        check_variant_name(variant)
        push_options = split_push_options(kwargs, _SAVE_OPTIONS)
        with weights_in_place(self), merged_folder(save_directory, _no_longer_needed) as partial:
            self._write_pretrained(partial, max_shard_size=max_shard_size, variant=variant, **kwargs)
            files = written_files(partial)
        if push_to_hub:
            upload_saved(save_directory, files, "model", push_options, additions(Path(save_directory), files))

    def _write_pretrained(self, folder: Path, **kwargs: Any) -> None:
        """Writes configuration and weights into an empty folder; of a model with an adapter that alone.

        Adapters of subjects lie in folders beside the weights.
        """
        check_own_patterns(self)
        if adapted_subjects(self):
            check_only_of_subjects(self)
            write_subject_adapters(self, folder)
            self._hf_peft_config_loaded = False
            try:
                super().save_pretrained(folder, **{"state_dict": base_state(self), **kwargs})
            finally:
                self._hf_peft_config_loaded = True
            return
        if has_adapter_layers(unwrapped(self)) and not adapters_of(self) and kwargs.get("state_dict") is None:
            kwargs["state_dict"] = base_state(self)
        super().save_pretrained(folder, **kwargs)

    def save_base(
        self, folder: str | os.PathLike, max_shard_size: int | str = "2GB", variant: str | None = None
    ) -> None:
        """Saves configuration and weights without the adapters that the model has; the rest is as in `save_pretrained`.

        Args:
            folder: The folder, which may hold an adapter that was saved before.
            max_shard_size: Size of one weights file.
            variant: Part of the names of the weights files.

        Raises:
            FmriModelsError: The system refuses to write.
        """
        adapted: bool = bool(adapters_of(self))
        with weights_in_place(self), merged_folder(folder, weights_no_longer_needed) as partial:
            try:
                self._hf_peft_config_loaded = False
                super().save_pretrained(
                    partial, state_dict=base_state(self), max_shard_size=max_shard_size, variant=variant
                )
            finally:
                self._hf_peft_config_loaded = adapted

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Puts a new PEFT adapter on the model, which alone is to be trained then, as in `PreTrainedModel.add_adapter`.

        Beside adapters of subjects it is one that all rows see, while it is active.

        Raises:
            FmriModelsError: The model has adapters of subjects, and this is no LoRA.
        """
        with as_first_adapter(self, getattr(adapter_config, "peft_type", "LORA")):
            super().add_adapter(adapter_config, adapter_name)

    def enable_adapters(self) -> None:
        """Switches adapters on again after `disable_adapters`, copies of whole modules among them."""
        super().enable_adapters()
        switch_on_copies(self)

    def load_adapter(
        self,
        peft_model_id: str | os.PathLike | None = None,
        adapter_name: str | None = None,
        *args: Any,
        is_trainable: bool = False,
        hotswap: bool | Literal["auto"] = "auto",
        adapter_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LoadStateDictInfo:
        """Puts a saved PEFT adapter on the model, with every tensor that it needs.

        Args:
            peft_model_id: Folder, or repository id.
            adapter_name: What to call it; `"default"` without.
            *args: Those of `PreTrainedModel.load_adapter`, which also takes tensors in the place of a folder.
            is_trainable: Whether its weights are to be trained; without, the model is in eval mode.
            hotswap: Whether its weights replace those of the adapter of that name, as in `PreTrainedModel`.
            adapter_kwargs: How files are fetched: `subfolder`, `revision`, `token`, ….
            **kwargs: Those of `PreTrainedModel.load_adapter`.

        Raises:
            FmriModelsError: There is no adapter, it is of another model, or its tensors are missing, not finite, or in
                another format than safetensors.
        """
        given = {"is_trainable": is_trainable, "hotswap": hotswap}
        if peft_model_id is None:
            return super().load_adapter(None, adapter_name, *args, adapter_kwargs=adapter_kwargs, **given, **kwargs)
        options = {**fetch_options(kwargs), **(adapter_kwargs or {})}
        options = {name: options[name] for name in (*FETCH_OPTIONS, "subfolder") if options.get(name) is not None}
        folder = _local_folder(str(peft_model_id), options) / options.get("subfolder", "")
        recover(folder)
        check_adapter(folder)
        adapter_name = adapter_name or "default"
        if hotswap is True or (
            hotswap and getattr(self, "_hotswap_enabled", False) and adapter_name in adapters_of(self)
        ):
            kwargs = {name: value for name, value in kwargs.items() if name not in FETCH_OPTIONS}
            return super().load_adapter(str(folder), adapter_name, *args, use_safetensors=True, **given, **kwargs)
        peft_type = read_object(folder / ADAPTER_CONFIG_FILE, "adapter's configuration", MEND).get("peft_type")
        with as_first_adapter(self, peft_type):
            return put_adapter(self, folder, adapter_name, is_trainable)


def _check_device_map(device_map: Any, what: str) -> None:
    """Refuses devices that are not there, which libraries notice in the middle of loading."""
    for device in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        if device is not None and device not in _PLACES:
            checked_device(device, what)


def _with_names_of_today(kwargs: dict[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of transformers' `from_pretrained` by which tensors are read under the names that they have today."""
    if not prefixes:
        return kwargs
    return {**kwargs, "key_mapping": {**(kwargs.get("key_mapping") or {}), **_patterns_of(prefixes)}}


def _patterns_of(prefixes: Mapping[str, str]) -> dict[str, str]:
    return {f"^{re.escape(stored)}": today for stored, today in prefixes.items()}


def _forget_former_names(model: Any, prefixes: Mapping[str, str]) -> None:
    """Saving is under today's names, and not under those that transformers has renamed."""
    renamed = _patterns_of(prefixes)
    conversions = getattr(model, "_weight_conversions", None) or ()
    model._weight_conversions = [
        each for each in conversions if not set(getattr(each, "_original_source_patterns", ())) & renamed.keys()
    ]


def _names_of_weights(folder: Path, place: str, subfolder: str, kwargs: dict[str, Any]) -> list[str]:
    """Names of the weights files of a model's folder; of the whole repository's where nothing was fetched of them."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if variants_in(names) or is_folder(place) or kwargs.get("local_files_only"):
        return names
    prefix = f"{subfolder}/" if subfolder else ""
    files = list_files(place, kwargs.get("revision"), kwargs.get("token")) or []
    return [file.removeprefix(prefix) for file in files if file.startswith(prefix)]


def _requiring_grad(values: Any) -> Any:
    """A tensor through which gradients go; it and not the caller's own gets one."""
    if isinstance(values, torch.Tensor) and values.is_floating_point() and not values.requires_grad:
        return values.detach().requires_grad_()
    return values


def _no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Older weights, and an adapter that lies beside the weights of a model that has none."""
    obsolete = weights_no_longer_needed(folder, written)
    if CONFIG_FILE in written:
        obsolete += [name for name in ADAPTER_FILES if name not in written and (folder / name).is_file()]
        of_subjects = (each.relative_to(folder).as_posix() for each in folder.glob(f"{SUBJECT_ADAPTERS}/*/*"))
        obsolete += [name for name in of_subjects if name not in written]
    return obsolete


def _no_id(found: str) -> FmriModelsError:
    return FmriModelsError(
        f"subject_ids has {found}; expected one id a row, each the name of a subject or its index, a whole number."
    )


def _local_folder(name_or_path: str, kwargs: dict[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the model."""
    prefix = f"{kwargs['subfolder']}/" if kwargs.get("subfolder") else ""
    patterns = [f"{prefix}{name}" for name in (CONFIG_FILE, *ADAPTER_FILES, *SUBJECT_ADAPTER_FILES)]
    patterns += weights_patterns(prefix, kwargs.get("variant"))
    return local_folder(name_or_path, patterns, **fetch_options(kwargs))
