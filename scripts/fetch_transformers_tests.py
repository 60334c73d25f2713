"""Lays down transformers' own tests, which its wheel does not carry, for the suites in tests/suites.

    python scripts/fetch_transformers_tests.py

Fetches the source distribution of the version that is installed, with pip, and unpacks its `tests/` into `.suites/`,
which git ignores. Does nothing where they are already.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Fetches the tests unless they are here."""
    name = f"transformers-{version('transformers')}"
    folder = ROOT / ".suites" / name
    if folder.exists():
        print(f"{folder.relative_to(ROOT)} is here already.")
        return
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = download(name.replace("-", "=="), Path(scratch))
        unpack(archive, f"{name}/tests", Path(scratch) / "unpacked")
        # In one step, so that what is there is whole.
        (Path(scratch) / "unpacked" / name).rename(folder)
    print(f"{folder.relative_to(ROOT)} has transformers' own tests.")


def download(requirement: str, folder: Path) -> Path:
    """The source distribution of a requirement, fetched by pip as it is configured here."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--no-binary", "transformers", "--dest", str(folder), requirement]
    if subprocess.run(command).returncode:
        sys.exit(f"pip can't fetch the source distribution of {requirement}; see above, and try again with a network.")
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, part: str, folder: Path) -> None:
    """Unpacks one folder of an archive, and makes a package of it.

    Args:
        archive: A tar file.
        part: The folder's path in it.
        folder: Where that path begins then.
    """
    with tarfile.open(archive) as files:
        members = [member for member in files if member.name.startswith(f"{part}/")]
        if not members:
            sys.exit(f"{archive.name} has no {part}; its layout has changed.")
        files.extractall(folder, members, filter="data")
    # Some of them import the folder that they lie in.
    (folder / part / "__init__.py").touch()


if __name__ == "__main__":
    main()
