"""`evaluate --images`: the report of anybody's reconstructions, matched with the true pictures by file name."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from .. import progress
from ..data.generator_pictures import resized_picture
from ..data.picture_files import named_pictures
from ..data.pictures import GREY_MODES, opened_picture, read_picture
from ..errors import FmriModelsError
from ..names import is_line, listed, one_line
from ..seeds import check_seed
from .extractors import FeatureExtractor
from .named_metrics import OF_OWN_SIZE, SMALLEST_NETWORK_PICTURE
from .protocols import Protocol, get_protocol
from .raters.pack import PackRequest, write_pack
from .report import Report
from .report_folder import check_report_folder, write_report
from .row_data import RowData
from .scoring import score_rows

# Bytes a value of a true picture: pictures, their reconstructions and means as float32, and what metrics make of them.
_BYTES_A_VALUE = 40


def evaluate_images(
    recon_dir: str | PathLike,
    truth_dir: str | PathLike,
    out: str | PathLike,
    protocol: str | Protocol | None = None,
    seed: int = 0,
    overwrite: bool = False,
    weights: str | PathLike | None = None,
    extractors: Mapping[str, FeatureExtractor] | None = None,
    without: Sequence[str] = (),
    rater_pack: PackRequest | None = None,
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
        weights: Folder with weights of the networks that measure, under the names that they were published with.
        extractors: Name to network, instead of those that are known by name.
        without: Metrics, or networks for all of their metrics, that are left out; `"unavailable"` for those of all
            networks that can't be had.
        rater_pack: What people are to be asked, for which a folder is written beside the report.

    Raises:
        FmriModelsError: A folder or name is missing on one side, a file cannot be decoded, or the output folder can't
            be written.
    """
    started = perf_counter()
    seed = check_seed(seed)
    check_report_folder(out, overwrite, (recon_dir, truth_dir))
    if rater_pack is not None:
        rater_pack.check_free(out)
    given = extractors or {}
    chosen = get_protocol(protocol).without(without, given, weights)
    chosen.check_names(given)
    with progress.phase("Reading pictures"):
        names, truth, recon, notes = load_matched(recon_dir, truth_dir, chosen)
    if min(truth.shape[-2:]) >= SMALLEST_NETWORK_PICTURE:
        chosen.check_available(given, weights)
    rows = {"brain": RowData(recon), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    scores = score_rows(rows, truth, names, chosen, extractors=extractors, seed=seed, weights=weights)
    progress.say("Summing up: intervals and the permutation test")
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
            *_of_who_made_them(chosen),
            *notes,
        ],
        uses_test_images=["mean_image"],
    )
    write_report(out, report, scores, rows, truth)
    if rater_pack is not None:
        write_pack(rater_pack, report, rows, truth, scores, chosen, weights=weights, extractors=extractors)
    return report


def _of_who_made_them(protocol: Protocol) -> list[str]:
    """A sentence on what a protocol fixes and nobody can see in files."""
    fixed = [f"{name.replace('_', ' ')} {value}" for name, value in protocol.drawing.items()]
    if protocol.low_level_share:
        fixed.append(f"mixed of {protocol.blend}")
    if not fixed:
        return []
    return [f"Whether the files were made as {protocol.name} says ({', '.join(fixed)}), nobody can see in them."]


def load_matched(
    recon_dir: str | PathLike, truth_dir: str | PathLike, protocol: Protocol | None = None
) -> tuple[list[str], Tensor, Tensor, list[str]]:
    """Pictures of two folders by name.

    Reconstructions of another size than the true pictures become as large as these, unless the protocol brings both to
    one size: it is to resize them itself, and once.

    Args:
        recon_dir: Reconstructions.
        truth_dir: True pictures.
        protocol: By which they are measured; None for one that leaves them as they are.

    Returns:
        Names, true pictures and reconstructions (N, C, H, W) float32 in [0, 1], and sentences about what was changed.
    """
    recon_files, recon_notes = _by_name(recon_dir)
    truth_files, truth_notes = _by_name(truth_dir)
    _check_names(recon_files, truth_files, Path(recon_dir), Path(truth_dir))
    names = sorted(truth_files)
    notes = [*recon_notes, *truth_notes]
    _check_memory([truth_files[name] for name in names], [recon_files[name] for name in names], protocol)
    truth = [_pixels(truth_files[name]) for name in names]
    (height, width), share = _most_frequent_size(truth)
    if share < len(names):
        notes.append(
            f"{len(names) - share} of {len(names)} true pictures were resized to the most frequent size, "
            f"{width}x{height}."
        )
    truth = [resized_picture(picture, width, height) for picture in truth]
    recon, of_whom = [_pixels(recon_files[name]) for name in names], "the true pictures'"
    own, _ = _most_frequent_size(recon)
    if own != (height, width) and _is_made_one_size(protocol, own, (height, width)):
        notes.append(
            f"The reconstructions have {own[1]}x{own[0]} pixels and the true pictures {width}x{height}; both were "
            "resized as the protocol says."
        )
        (height, width), of_whom = own, "the most frequent size,"
    resized = sum(picture.shape[:2] != (height, width) for picture in recon)
    recon = [resized_picture(picture, width, height) for picture in recon]
    if resized:
        notes.append(
            f"{resized} of {len(names)} reconstructions were resized to {of_whom} {width}x{height} (bicubic, "
            "antialiased), which changes pixel metrics."
        )
    grey = [sum(picture.shape[2] == 1 for picture in pictures) for pictures in (truth, recon)]
    # Grey only if everything is; one coloured picture makes the set a coloured one.
    channels = 1 if grey == [len(names)] * 2 else 3
    if channels == 3 and any(grey):
        notes.append(
            f"{grey[0]} of {len(names)} true pictures and {grey[1]} of {len(names)} reconstructions are grey; all were "
            "compared in colour."
        )
    return names, _stacked(truth, channels), _stacked(recon, channels), notes


def _most_frequent_size(pictures: list[np.ndarray]) -> tuple[tuple[int, int], int]:
    """Height and width that most pictures have, and how many have it."""
    (size, count), *_ = Counter(picture.shape[:2] for picture in pictures).most_common(1)
    return (size[0], size[1]), count


def _is_made_one_size(protocol: Protocol | None, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a protocol resizes pictures of two sizes (height, width) so that they can be compared."""
    if protocol is None or (protocol.size is None and any(name in OF_OWN_SIZE for name in protocol.extractors)):
        return False
    return protocol.preparation.size_of_pixels(*one) == protocol.preparation.size_of_pixels(*other)


def _check_memory(files: list[Path], recon_files: list[Path], protocol: Protocol | None) -> None:
    """Refuses pictures that would not fit into memory, before they are decoded."""
    headers, own = ([_size_and_channels(file) for file in each] for each in (files, recon_files))
    (width, height), (own_width, own_height) = (
        Counter(size for size, _ in each).most_common(1)[0][0] for each in (headers, own)
    )
    if own_width * own_height > width * height and _is_made_one_size(
        protocol, (own_height, own_width), (height, width)
    ):
        width, height = own_width, own_height
    needed = len(files) * width * height * max(channels for _, channels in headers) * _BYTES_A_VALUE
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise FmriModelsError(
            f"{len(files)} pictures of {width}x{height} pixels need {needed / 2**30:.0f} GiB of memory and this "
            f"machine has {available / 2**30:.0f} GiB; scale them down, or give fewer."
        )


def _fingerprint(names: list[str], pictures: Tensor) -> str:
    """SHA-256 over names and pixels, by which `compare` knows reports on the same pictures."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8"))
    digest.update((pictures * 255).round().byte().numpy().tobytes())
    return digest.hexdigest()


def _by_name(folder: str | PathLike) -> tuple[dict[str, Path], list[str]]:
    """Files by their names, and what was not read as sentences."""
    found = named_pictures(Path(folder))
    for name, path in found.files.items():
        if not is_line(name):
            raise FmriModelsError(
                f"{one_line(folder)} has the picture {one_line(repr(path.name))}, whose name is not one line of "
                "visible characters; rename it."
            )
    return found.files, found.notes(Path(folder).name)


def _check_names(recon: dict[str, Path], truth: dict[str, Path], recon_dir: Path, truth_dir: Path) -> None:
    if not recon.keys() & truth.keys():
        raise FmriModelsError(
            f"No name in {one_line(recon_dir)} (such as {min(recon)}) occurs in {one_line(truth_dir)} (such as "
            f"{min(truth)}); name each reconstruction as its true picture."
        )
    missing = [
        f"{one_line(folder)} lacks {len(names)}: {listed(sorted(names), 10)}"
        for folder, names in ((recon_dir, truth.keys() - recon.keys()), (truth_dir, recon.keys() - truth.keys()))
        if names
    ]
    if missing:
        raise FmriModelsError(
            f"The two folders have different names: {'; '.join(missing)}. Give both the same pictures."
        )


def _size_and_channels(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height, and channels, as the file's header says: before the picture is turned."""
    try:
        with opened_picture(path, path.name) as picture:
            return picture.size, 1 if picture.mode in GREY_MODES else 3
    except FmriModelsError as error:
        raise _undecodable(path, error) from error


def _pixels(path: Path) -> np.ndarray:
    try:
        return read_picture(path, path.name)
    except FmriModelsError as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: Exception) -> FmriModelsError:
    return FmriModelsError(f"The picture {one_line(path)} cannot be decoded: {one_line(error)}")


def _stacked(pictures: list[np.ndarray], channels: int) -> Tensor:
    """(N, C, H, W) float32 in [0, 1]."""
    alike = [np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures]
    return torch.from_numpy(np.stack(alike)).permute(0, 3, 1, 2).float().contiguous() / 255
