"""The one file of code that goes to the Hub beside a model or processor: it says how to install this package.

Where the package is missing, transformers' Auto classes run it with `trust_remote_code=True`, and all that it does is
to raise that sentence. Where the package is installed and not imported, it imports it. With the package imported,
nobody fetches or runs it. Folders on disk hold no code: it is added to what is uploaded, and what names it in a
configuration is taken out when that is read.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitInfo, HfApi

from .entry_points import OWN_PACKAGE
from .hub_repository import list_files, upload, uploading_errors_as_sentences
from .project import how_to_install
from .reading import read_object
from .records import import_path
from .swapping import written_files
from .upload_checks import check_upload

SHIM_MODULE = "needs_fmri_models"
SHIM_FILE = f"{SHIM_MODULE}.py"
# Base classes, whose `from_pretrained` finds the method's own.
_CLASSES = {
    "config.json": {"AutoConfig": "FmriConfig", "AutoModel": "FmriPreTrainedModel"},
    "preprocessor_config.json": {"AutoFeatureExtractor": "FmriProcessor", "AutoProcessor": "FmriProcessor"},
}
# Configurations of models and processors have it; those of networks inside an image generator do not.
_OWN_FIELD = "fmri_schema"
_CARD_FILE = "README.md"
_PIPELINE_INDEX = "model_index.json"
# In the card that transformers makes where there is none.
_GENERATED = "automatically generated"
_TEXT = '''"""The package fmri_models loads what lies here; where that is missing, this file says how to install it."""

from typing import Any

try:
    import fmri_models
except ModuleNotFoundError as error:
    if error.name != "fmri_models":
        raise
    raise ImportError(
        {sentence!r}
    ) from None


def __getattr__(name: str) -> Any:
    """A class of the package; nothing of this repository is run."""
    return getattr(fmri_models, name)
'''


def shim() -> str:
    """The text of the file."""
    sentence = f"This repository is loaded by the package fmri_models, which is not installed here: {how_to_install()}"
    return _TEXT.format(sentence=sentence)


def additions(folder: Path, files: Sequence[str]) -> dict[str, bytes]:
    """What is uploaded in place of files of a folder, or besides them, so that the Hub's readers find the file of code.

    Args:
        folder: A folder with a model, a processor or a pipeline.
        files: What of it is uploaded, relative to it.

    Returns:
        Name in the repository ▶ content; empty for a folder without a model's or a processor's configuration.
    """
    added: dict[str, bytes] = {}
    for name in files:
        classes = _CLASSES.get(PurePosixPath(name).name)
        if classes is None:
            continue
        values = read_object(folder / name, "configuration", "save it again")
        if _OWN_FIELD in values:
            values["auto_map"] = {auto: f"{SHIM_MODULE}.{found}" for auto, found in classes.items()}
            if processor_class := classes.get("AutoProcessor"):
                # Without it, AutoProcessor would ask for leave to run code although the package is imported.
                values["processor_class"] = processor_class
            added[name] = (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
    return {**added, SHIM_FILE: shim().encode()} if added else {}


def without_shim(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what names this file; what names other code stays, for a check to refuse."""
    auto_map = values.get("auto_map")
    if not isinstance(auto_map, Mapping):
        return dict(values)
    is_ours = all(isinstance(name, str) and name.startswith(f"{SHIM_MODULE}.") for name in auto_map.values())
    return {key: value for key, value in values.items() if key != "auto_map"} if is_ours else dict(values)


class LoadedByItsPackage:
    """Goes before a library's class that would copy the module of its code beside what it saves.

    transformers calls `register_for_auto_class` of each class that a file of code gave it, and what is saved afterwards
    would name code that nobody wrote. This package is installed and not copied.
    """

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Does nothing: the Auto classes know the class as soon as the package is imported."""


class PushedWithCode:
    """Goes before a library's class of models or processors: what it uploads has the file of code with it."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: list[str] | None = None,
        **save_options: Any,
    ) -> CommitInfo:
        """Uploads it in one commit.

        Args:
            repo_id: `user/name`, or a name in your namespace; the repository is made where there is none.
            commit_message: First line of the commit.
            commit_description: Further lines of the commit.
            private: Whether a repository that is made is private.
            token: Token; None takes the one that is logged in.
            revision: Branch; None takes the main one.
            create_pr: Propose the commit instead of making it.
            tags: Further tags on the card.
            **save_options: Those of `save_pretrained`, such as `max_shard_size` and `variant`.

        Raises:
            FmriModelsError: It can't be saved, there is no network, or the token may not write there.
        """
        saved: Any = self
        # By name, because records of trainings stand above models.
        check = import_path(f"{OWN_PACKAGE}.provenance:check_component_may_be_shared")
        if place := getattr(saved, "name_or_path", ""):
            check(Path(place), f"This {type(self).__name__}", None)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / repo_id.rsplit("/", 1)[-1]
            saved.save_pretrained(folder, **save_options)
            check_upload(folder, written_files(folder))
            with uploading_errors_as_sentences(repo_id):
                repo_id = HfApi().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
                _write_card(folder, repo_id, tags or [], token, revision)
            files = written_files(folder)
            return upload(
                folder,
                files,
                repo_id,
                commit_message or f"Upload {type(self).__name__}",
                private=private,
                token=token,
                revision=revision,
                commit_description=commit_description,
                create_pr=create_pr,
                additions=additions(folder, files),
            )


def _write_card(
    folder: Path, repo_id: str, tags: Sequence[str], token: bool | str | None, revision: str | None
) -> None:
    """Writes the card of a model or processor.

    What its owner has stated in the repository's card is kept; somebody else's card, and that of a pipeline that lies
    in the same repository, stay.
    """
    if _PIPELINE_INDEX in (list_files(repo_id, revision, token) or ()):
        return
    from transformers.utils.hub import create_and_tag_model_card

    card = create_and_tag_model_card(repo_id, list(tags), token=token)
    is_new = card.data.get("library_name") == "transformers" and _GENERATED in card.text
    is_known = any((folder / name).is_file() for name in _CLASSES)
    if not is_new or not is_known:
        card.save(folder / _CARD_FILE)
    if is_known and (is_new or card.data.get("library_name") == OWN_PACKAGE):
        # By name, because cards stand above models.
        import_path(f"{OWN_PACKAGE}.hub.model_card:write_model_card")(folder, tags=tags)
