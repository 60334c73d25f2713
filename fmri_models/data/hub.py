"""Trial tables as data sets on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..data_terms import terms_of
from ..errors import FmriModelsError
from ..hub_repository import fetch_folder, is_folder, is_repository_id, upload
from ..names import is_name, listed, one_line
from ..reading import read_text
from ..saving import write_text
from ..swapping import recover
from . import schema
from .card import data_card, permission_on_card, with_permission
from .metadata import read_metadata

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


def check_may_be_passed_on(metadata: Mapping[str, Any], permission: str | None) -> None:
    """Refuses a table of data whose terms forbid that they are passed on, to whomever: a private repository is a copy.

    Args:
        metadata: What `table.json` holds.
        permission: Which written permission there is; None where there is none.

    Raises:
        FmriModelsError: Names the data set and where its terms are.
    """
    terms = terms_of(metadata["name"], metadata["license"], metadata["source"])
    if terms is None or permission or "forbidden" not in (terms.redistribution, terms.stimuli):
        return
    what = "it is" if terms.redistribution == "forbidden" else "its pictures are"
    at = f" ({terms.url})" if terms.url else ""
    raise FmriModelsError(
        f"The trial table {one_line(repr(metadata['name']), 120)} is of {terms.title}, whose terms{at} forbid that "
        f"{what} passed on, also to a private repository; whoever has a written permission names it (--permission, "
        "permission= in Python), and the card keeps it."
    )


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
    **options: Any,
) -> str:
    """Uploads a table's own files; the other arguments are those of `hub_repository.upload`.

    Args:
        path: The table's folder.
        metadata: What `table.json` holds.
        repo_id: `user/name`.
        commit_message: First line of the commit.
        permission: Which written permission there is to pass data on whose terms forbid it; the card keeps it.

    Returns:
        Address of the commit.

    Raises:
        FmriModelsError: The data's terms forbid it, or the Hub does not take it.
    """
    write_table_card(path, metadata, permission)
    files = table_files(path, metadata)
    return upload(path, files, repo_id, commit_message, repo_type="dataset", **options).commit_url


def write_table_card(path: Path, metadata: Mapping[str, Any], permission: str | None = None) -> None:
    """Writes a table's card where there is none, or where it has to name a permission.

    Raises:
        FmriModelsError: The data's terms forbid that the table is passed on, and no permission is named, here or on the
            card.
    """
    card = path / _CARD_FILE
    known = permission_on_card(card) if card.is_file() else None
    check_may_be_passed_on(metadata, permission or known)
    if not card.is_file():
        write_text(card, data_card(metadata, permission))
    elif permission and permission != known:
        write_text(card, with_permission(read_text(card, "data set card", "write it again"), metadata, permission))
