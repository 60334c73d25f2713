"""Trial tables as data sets on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import FmriModelsError
from ..hub_repository import fetch_folder, is_folder, is_repository_id, upload
from ..names import is_name, listed
from ..reading import read_text
from ..saving import write_text
from ..swapping import recover
from . import schema
from .card import data_card, permission_on_card, with_permission
from .metadata import read_metadata
from .parquet import num_pictures
from .table_terms import check_may_be_passed_on
from .without_pictures import without_pictures

_CARD_FILE = "README.md"


def may_be_table(path: str | Path) -> bool:
    """Whether a path that may also be an array's is that of a trial table: a folder, or a repository's name."""
    return is_folder(str(path)) or (
        is_repository_id(str(path)) and not Path(path).exists() and Path(path).suffix.lower() != ".npy"
    )


def table_folder(path: str | Path, options: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """The folder itself, or that of the cache with the files that the table of a repository names.

    Args:
        path: Folder, or repository id; a folder of that name goes first.
        options: How files are fetched, by the names of `FETCH_OPTIONS`.

    Raises:
        FmriModelsError: It is neither a folder nor to be had from the Hub, or what is there is no trial table.
    """
    text = str(path)
    if is_folder(text) or not is_repository_id(text) or Path(text).exists():
        return Path(path)
    # A replacement that was interrupted may have left the folder under another name.
    recover(path)
    if is_folder(text):
        return Path(path)
    folder = fetch_folder(text, [schema.TABLE_FILE], "dataset", **options)
    if not (folder / schema.TABLE_FILE).exists():
        raise FmriModelsError(
            f"The data set {text} on the Hub has no {schema.TABLE_FILE}, so it is no trial table; check the name, or "
            "read it with datasets.load_dataset."
        )
    files = read_metadata(folder)["files"]
    # The same commit for all files, which names the folder.
    pinned = {**options, "revision": folder.name}
    folder = fetch_folder(
        text, [schema.TABLE_FILE, _CARD_FILE, *files, f"{schema.SPLITS_FOLDER}/*.parquet"], "dataset", **pinned
    )
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise FmriModelsError(
            f"The data set {text}, as it was fetched from the Hub, lacks {listed(missing)}, which its "
            f"{schema.TABLE_FILE} names; the table has to be uploaded again, whole (`fmri-models data push`), or name "
            "another revision."
        )
    return folder


def table_files(path: Path, metadata: Mapping[str, Any]) -> list[str]:
    """Names of a table's own files, its splits and its card among them."""
    splits = [
        f"{schema.SPLITS_FOLDER}/{file.name}"
        for file in (path / schema.SPLITS_FOLDER).glob("*.parquet")
        if is_name(file.stem)
    ]
    return sorted({schema.TABLE_FILE, _CARD_FILE, *metadata["files"], *splits})


def upload_table(
    path: Path,
    metadata: Mapping[str, Any],
    repo_id: str,
    commit_message: str,
    permission: str | None = None,
    private: bool | None = None,
    pictures: bool = True,
    **options: Any,
) -> str:
    """Uploads a table's own files; the other arguments are those of `hub_repository.upload`.

    Args:
        path: The table's folder.
        metadata: What `table.json` holds.
        repo_id: `user/name`.
        commit_message: First line of the commit.
        permission: Which written permission there is to pass data on whose terms forbid it; the card keeps it.
        private: Whether a repository that is made is private, and one that is there has to be.
        pictures: Whether the pictures go along.

    Returns:
        Address of the commit.

    Raises:
        FmriModelsError: The data's terms forbid it, or the Hub does not take it.
    """
    write_table_card(path, metadata, permission, bool(private), pictures)
    files = table_files(path, metadata)
    additions = {} if pictures else without_pictures(path, metadata, permission)
    return upload(
        path, files, repo_id, commit_message, private, repo_type="dataset", additions=additions, **options
    ).commit_url


def write_table_card(
    path: Path,
    metadata: Mapping[str, Any],
    permission: str | None = None,
    private: bool = False,
    pictures: bool = True,
) -> None:
    """Writes a table's card where there is none, or where it has to name a permission.

    Args:
        path: The table's folder.
        metadata: What `table.json` holds.
        permission: Which written permission there is; one on the card counts, too.
        private: Whether the table goes to a private repository.
        pictures: Whether its pictures go along.

    Raises:
        FmriModelsError: The data's terms forbid that the table is passed on, and no permission is named, here or on the
            card.
    """
    card = path / _CARD_FILE
    known = permission_on_card(card) if card.is_file() else None
    check_table(path, metadata, permission or known, private, pictures)
    if not card.is_file():
        write_text(card, data_card(metadata, permission))
    elif permission and permission != known:
        write_text(card, with_permission(read_text(card, "data set card", "write it again"), metadata, permission))


def check_table(
    path: Path, metadata: Mapping[str, Any], permission: str | None, private: bool, pictures: bool = True
) -> None:
    """Refuses a table whose terms forbid that it is passed on; the arguments are those of [`write_table_card`].

    Raises:
        FmriModelsError: See [`check_may_be_passed_on`].
    """
    has_pictures = pictures and any(
        num_pictures(path / name, schema.stimuli_schema(), schema.MAX_STIMULI)
        for name in metadata["files"]
        if name.startswith(f"{schema.STIMULI_FOLDER}/")
    )
    check_may_be_passed_on(metadata, permission, private, has_pictures)
