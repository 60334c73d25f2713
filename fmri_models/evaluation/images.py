"""`evaluate --images`: the report of anybody's reconstructions, matched with the true pictures by file name."""

import hashlib
import os
from collections import Counter
from os import PathLike
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.pictures import loaded_picture, opened_picture
from ..errors import FmriModelsError
from ..names import is_line, one_line
from ..seeds import check_seed
from .protocols import Protocol, get_protocol
from .rendering import check_report_folder, write_report
from .report import Report
from .scoring import RowData, score_rows

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_GREY_MODES = ("L", "1", "LA")
_MODES = (*_GREY_MODES, "RGB", "P", "RGBA", "CMYK", "YCbCr")
# Bytes a value of a true picture: pictures, their reconstructions and means as float32, and what metrics make of them.
_BYTES_A_VALUE = 40


def evaluate_images(
    recon_dir: str | PathLike,
    truth_dir: str | PathLike,
    out: str | PathLike,
    protocol: str | Protocol | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Report:
    """Scores a folder of reconstructions against a folder of true pictures and writes the report.

    There is no model here, so no brain control can be computed: the rows are `brain` (the reconstructions) and
    `mean_image` (the average of the true pictures, which uses them), with the permutation test.

    Args:
        recon_dir: Reconstructions; a file has the name of its true picture, the suffix may differ.
        truth_dir: True pictures.
        out: Folder for the report.
        protocol: Name or protocol; `standard` if None.
        seed: Of bootstrap, permutation and the choice of pictures in the grid.
        overwrite: Write into a folder that has content.

    Raises:
        FmriModelsError: A folder or name is missing on one side, a file cannot be decoded, or the output folder can't
            be written.
    """
    started = perf_counter()
    check_seed(seed)
    check_report_folder(out, overwrite, (recon_dir, truth_dir))
    chosen = protocol if isinstance(protocol, Protocol) else get_protocol(protocol)
    names, truth, recon, notes = load_matched(recon_dir, truth_dir)
    rows = {"brain": RowData(recon), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    scores = score_rows(rows, truth, names, chosen, seed=seed)
    report = Report.from_scores(
        scores,
        chosen,
        data={
            "name": one_line(Path(truth_dir).name),
            "fingerprint": _fingerprint(names, truth),
            "simulated": None,
            "mean_noise_ceiling": None,
        },
        model={"images": one_line(Path(recon_dir).name)},
        timing={"total_s": perf_counter() - started},
        seed=seed,
        notes=[
            "The reconstructions were given as files: without the model there are no brain controls, so only the mean "
            "image and re-paired reconstructions stand beside them. mean_image is the average of the true test "
            "pictures (uses_test_images).",
            *notes,
        ],
        uses_test_images=["mean_image"],
    )
    write_report(out, report, scores, rows, truth)
    return report


def load_matched(recon_dir: str | PathLike, truth_dir: str | PathLike) -> tuple[list[str], Tensor, Tensor, list[str]]:
    """Pictures of two folders by name.

    Returns:
        Names, true pictures and reconstructions (N, C, H, W) float32 in [0, 1], and sentences about what was changed.
    """
    recon_files, truth_files = _by_name(recon_dir), _by_name(truth_dir)
    _check_names(recon_files, truth_files, Path(recon_dir), Path(truth_dir))
    names = sorted(truth_files)
    truth_kinds = [_size_and_mode(truth_files[name]) for name in names]
    recon_kinds = [_size_and_mode(recon_files[name]) for name in names]
    # Grey only if everything is; one colored picture makes the set a colored one.
    mode = "L" if all(each in _GREY_MODES for _, each in truth_kinds + recon_kinds) else "RGB"
    size, share = Counter(each for each, _ in truth_kinds).most_common(1)[0]
    _check_memory(len(names), size, mode)
    notes = []
    if share < len(names):
        notes.append(
            f"{len(names) - share} of {len(names)} true pictures were resized to the most frequent size, "
            f"{size[0]}x{size[1]}."
        )
    resized = sum(each != size for each, _ in recon_kinds)
    if resized:
        notes.append(
            f"{resized} of {len(names)} reconstructions were resized to the true pictures' {size[0]}x{size[1]} "
            "(bicubic, antialiased), which changes pixel metrics."
        )
    truth, recon = (_stacked([files[name] for name in names], size, mode) for files in (truth_files, recon_files))
    return names, truth, recon, notes


def _check_memory(count: int, size: tuple[int, int], mode: str) -> None:
    """Refuses pictures that would not fit into memory, before they are decoded."""
    needed = count * size[0] * size[1] * (1 if mode == "L" else 3) * _BYTES_A_VALUE
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise FmriModelsError(
            f"{count} pictures of {size[0]}x{size[1]} pixels need {needed / 2**30:.0f} GiB of memory and this machine "
            f"has {available / 2**30:.0f} GiB; scale them down, or give fewer."
        )


def _fingerprint(names: list[str], pictures: Tensor) -> str:
    """SHA-256 over names and pixels, by which `compare` knows reports on the same pictures."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8"))
    digest.update((pictures * 255).round().byte().numpy().tobytes())
    return digest.hexdigest()


def _by_name(folder: str | PathLike) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FmriModelsError(f"There is no folder {one_line(folder)}; give one with pictures.")
    # A pipe or a link to nowhere is no picture; opening a pipe would wait forever.
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FmriModelsError(f"The folder {one_line(folder)} has no pictures ({', '.join(SUFFIXES)}).")
    named: dict[str, Path] = {}
    for path in files:
        if not is_line(path.stem):
            raise FmriModelsError(
                f"{one_line(folder)} has the picture {one_line(repr(path.name))}, whose name is not one line of "
                "visible characters; rename it."
            )
        if path.stem in named:
            raise FmriModelsError(
                f"{one_line(folder)} has two pictures with the name {path.stem} ({named[path.stem].name}, "
                f"{path.name}); keep one."
            )
        named[path.stem] = path
    return named


def _check_names(recon: dict[str, Path], truth: dict[str, Path], recon_dir: Path, truth_dir: Path) -> None:
    if not recon.keys() & truth.keys():
        raise FmriModelsError(
            f"No name in {one_line(recon_dir)} (such as {min(recon)}) occurs in {one_line(truth_dir)} (such as "
            f"{min(truth)}); name each reconstruction as its true picture."
        )
    missing = [
        f"{one_line(folder)} lacks {len(names)}: {_listed(names)}"
        for folder, names in ((recon_dir, truth.keys() - recon.keys()), (truth_dir, recon.keys() - truth.keys()))
        if names
    ]
    if missing:
        raise FmriModelsError(
            f"The two folders have different names: {'; '.join(missing)}. Give both the same pictures."
        )


def _listed(names: set[str], limit: int = 10) -> str:
    in_order = sorted(names)
    return ", ".join(in_order[:limit]) + (f" and {len(in_order) - limit} more" if len(in_order) > limit else "")


def _size_and_mode(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height, and Pillow's mode, as the file's header says."""
    try:
        with opened_picture(path, path.name) as picture:
            size, mode = picture.size, picture.mode
    except FmriModelsError as error:
        raise _undecodable(path, error) from error
    if mode not in _MODES:
        raise FmriModelsError(
            f"The picture {one_line(path)} has the mode {mode}; expected 8 bits a channel, so convert it."
        )
    return size, mode


def _opened(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    try:
        with loaded_picture(path, path.name) as file:
            picture = file.convert("L" if file.mode in _GREY_MODES else "RGB")
    # Palettes and other modes are looked at late, and raise whatever their parsers do.
    except Exception as error:
        raise _undecodable(path, error) from error
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture.convert(mode))


def _undecodable(path: Path, error: Exception) -> FmriModelsError:
    return FmriModelsError(f"The picture {one_line(path)} cannot be decoded: {one_line(error)}")


def _stacked(files: list[Path], size: tuple[int, int], mode: str) -> Tensor:
    """(N, C, H, W) float32 in [0, 1]."""
    stacked = torch.from_numpy(np.stack([_opened(file, size, mode) for file in files])).float() / 255
    return stacked[:, None] if mode == "L" else stacked.permute(0, 3, 1, 2).contiguous()
