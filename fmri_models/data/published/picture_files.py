"""The picture files of published stimuli, which lie in folders of any depth or in a zip file."""

from collections.abc import Collection, Iterable
from pathlib import Path

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...reading import read_bytes

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_MOST_BYTES = 64 * 2**20
_MOST_MISSING = 3


def picture_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Name without ending ▶ file, of all pictures in some folders and those within.

    Raises:
        FmriModelsError: Two different files have one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith("."):
                other = found.setdefault(path.stem, path)
                if other.resolve() != path.resolve():
                    raise FmriModelsError(
                        f"Two pictures are called {one_line(path.stem, 80)}: {one_line(other)} and {one_line(path)}; "
                        "leave one of them out, or name the folder with the pictures."
                    )
    return found


def check_pictures(shown: Collection[str], found: Collection[str], where: str, incomplete: bool) -> None:
    """Refuses pictures of which some are missing; all of them may be.

    Args:
        shown: Which stimuli were shown.
        found: Names of the pictures that there are.
        where: Where they can be had, as the end of a sentence.
        incomplete: Whether somebody said that what is there is enough.

    Raises:
        FmriModelsError: Some are there, and others are not.
    """
    missing = sorted(set(shown) - set(found))
    if missing and len(missing) < len(set(shown)) and not incomplete:
        raise FmriModelsError(
            f"{len(missing)} of {len(set(shown))} pictures are missing ({listed(missing, _MOST_MISSING)}); {where}, or "
            "write those that are there with --option incomplete=yes."
        )


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture's file."""
    return read_bytes(path, "picture", "replace it", _MOST_BYTES)
