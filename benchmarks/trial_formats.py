"""The same trials in each format that `trial_table.py` compares, and how a training reads shuffled batches of each.

Every reader gives the same: `fmri` (B, voxels) float32, standardised, `pictures` (B, 3, H, W) float32 from 0 to 1, and
`trial` (B,) which trials these are, for one epoch. Conversion to float32 is done in the process that trains, so that
workers hand on as few bytes as each format allows.

- `fmri_models`: a trial table, as training by gradient reads it (`training_batches`, and pictures by `OnlineTargets`);
  it has no workers. With workers: its `TrialDataset` in PyTorch's `DataLoader`, the pictures as one of its targets.
- `webdataset`: tars as MindEye's `webdataset_avg_split` (`jpg`, `nsdgeneral.npy`, `coco73k.npy`, …), 18 of them, with
  its shuffle buffer of 500 samples. There a sample has three repetitions, of which a step takes one; here it has the
  one, so that a third of the bytes is read.
- `hdf5 float16`: MindEye2's files: betas float32 (trials, voxels), pictures float16 (n, 3, H, W), both contiguous as
  h5py writes them unless it is told otherwise. Rows of a batch are read from the files in ascending order.
- `hdf5 uint8`: the same with pictures as uint8.
- `hdf5 in memory`: the first one as MindEye2's `Train.py` (0541a41) has it: all is read before training, and kept.
"""

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHUFFLE_BUFFER = 500
_TARS = 18
_BLOCK = 256
_SUBJECT = "subj01"
Batch = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much there is.

    Args:
        trials: Each shows a picture of its own.
        voxels: Of each trial.
        pixels: A side of a picture.
        batch_size: Trials of a batch.
    """

    trials: int
    voxels: int
    pixels: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Complete ones of an epoch."""
        return self.trials // self.batch_size


def stimulus_id(trial: int) -> str:
    return f"nsd{trial:05d}"


# ---------------------------------------------------------------------------------------------------------- writing


def jpeg(number: int, pixels: int) -> bytes:
    """A picture of coarse and fine structure, about as large as a photograph of that size."""
    rng = np.random.default_rng([1, number])
    picture = np.zeros((pixels, pixels, 3), dtype=np.float32)
    for side, contrast in ((4, 60), (16, 40), (64, 25), (pixels, 6)):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        picture += contrast / 64 * (np.asarray(noise.resize((pixels, pixels), Image.Resampling.BICUBIC)) - 128.0)
    file = io.BytesIO()
    Image.fromarray((128 + picture).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_table(folder: Path, size: Size, offset: float = 0) -> None:
    """The trial table, and a processor with its statistics."""
    from fmri_models.data import TrialTable, TrialTableWriter
    from fmri_models.data.table_processor import fit_processor

    rng = np.random.default_rng(0)
    blocks = [min(_BLOCK, size.trials - start) for start in range(0, size.trials, _BLOCK)]
    # A table holds float16 as such, and everything else as float32.
    dtype = np.float32 if offset else np.float16
    fmri = ((offset + rng.standard_normal((n, size.voxels), dtype=np.float32)).astype(dtype) for n in blocks)
    with TrialTableWriter(folder / "table", "benchmark", simulated=True) as writer:
        writer.add_stimuli({"stimulus_id": stimulus_id(i), "image": jpeg(i, size.pixels)} for i in range(size.trials))
        writer.add_trials(_SUBJECT, "train", [stimulus_id(i) for i in range(size.trials)], fmri)
    fit_processor(TrialTable.open(folder / "table"), [_SUBJECT]).save_pretrained(folder / "processor")


def write_tars(folder: Path, size: Size) -> None:
    """`webdataset_avg_split/train/train_subj01_{n}.tar`."""
    processed, base = _processed(folder), folder / "webdataset_avg_split" / "train"
    base.mkdir(parents=True)
    for number, trials in enumerate(np.array_split(np.arange(size.trials), min(_TARS, max(2, size.batches)))):
        with tarfile.open(base / f"train_{_SUBJECT}_{number}.tar", "w") as archive:
            for trial, fmri, picture in zip(trials.tolist(), processed[trials], encoded(folder, trials), strict=True):
                members = {
                    "coco73k.npy": _npy(np.array([trial])),
                    "jpg": picture,
                    "nsdgeneral.npy": _npy(fmri[None]),
                    "num_uniques.npy": _npy(np.array([1])),
                    "trial.npy": _npy(np.array([trial])),
                }
                for ending, data in members.items():
                    member = tarfile.TarInfo(f"sample{trial:09d}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def write_betas(folder: Path, size: Size) -> None:
    """`betas_all_subj01_fp32_renorm.hdf5`, which all sides in HDF5 read."""
    import h5py

    processed = _processed(folder)
    with h5py.File(folder / f"betas_all_{_SUBJECT}_fp32_renorm.hdf5", "w") as file:
        betas = file.create_dataset("betas", (size.trials, size.voxels), dtype=np.float32)
        for start in range(0, size.trials, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, size.trials))
            betas[rows[0] : rows[-1] + 1] = processed[rows]


def write_pictures(folder: Path, size: Size, dtype: type) -> None:
    """`coco_images_{pixels}_{dtype}.hdf5`."""
    import h5py

    with h5py.File(_pictures_file(folder, size, dtype), "w") as file:
        images = file.create_dataset("images", (size.trials, 3, size.pixels, size.pixels), dtype=dtype)
        for trial, data in enumerate(encoded(folder, np.arange(size.trials))):
            levels = decoded(data)
            images[trial] = levels if dtype == np.uint8 else (levels / np.float32(255)).astype(dtype)


def files_of(side: str, folder: Path, size: Size) -> list[Path]:
    """What a side reads in an epoch."""
    if side == "fmri_models":
        return [path for path in (folder / "cache").rglob("*") if path.is_file()]
    if side == "webdataset":
        return sorted((folder / "webdataset_avg_split").rglob("*.tar"))
    dtype = np.uint8 if side == "hdf5 uint8" else np.float16
    return [folder / f"betas_all_{_SUBJECT}_fp32_renorm.hdf5", _pictures_file(folder, size, dtype)]


def _pictures_file(folder: Path, size: Size, dtype: type) -> Path:
    return folder / f"coco_images_{size.pixels}_{np.dtype(dtype).name}.hdf5"


def _processed(folder: Path) -> Any:
    """Voxels as every side has to deliver them."""
    from fmri_models import FmriProcessor
    from fmri_models.data import TrialTable
    from fmri_models.data.processed import ProcessedTrials

    trials = TrialTable.open(folder / "table").trials(_SUBJECT, "train")
    return ProcessedTrials(trials, FmriProcessor.from_pretrained(folder / "processor"))


def encoded(folder: Path, trials: np.ndarray) -> Iterator[bytes]:
    """The files of some trials' pictures, as the table has them."""
    from fmri_models.data import TrialTable

    for _, data in TrialTable.open(folder / "table").stimuli.encoded([stimulus_id(i) for i in trials.tolist()]):
        assert data is not None
        yield data


def decoded(data: bytes) -> np.ndarray:
    """(3, H, W) uint8."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture).transpose(2, 0, 1)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------- reading


class PassesPicturesOn:
    """In the place of an image generator: its embeddings are the pictures, so that nothing but reading is measured."""

    embeds_any_size = False

    def __init__(self, pixels: int) -> None:
        import torch

        self.image_size = (3, pixels, pixels)
        self.device = torch.device("cpu")

    def embed_images(self, pictures: Any) -> Any:
        return pictures


def fmri_models_side(folder: Path, size: Size, workers: int) -> Callable[[int], Iterator[Batch]]:
    import torch
    from torch.utils.data import DataLoader

    from fmri_models.data import TrialTable
    from fmri_models.data.batches import SeededBatches, training_batches
    from fmri_models.data.loading import TrialDataset
    from fmri_models.data.picture_cache import cached_pictures
    from fmri_models.training.online_targets import OnlineTargets

    table = TrialTable.open(folder / "table")
    generator: Any = PassesPicturesOn(size.pixels)
    if not workers:
        data = TrialDataset([_processed(folder)])
        pictures = OnlineTargets(table, generator, augmentation=lambda images, _: images)  # type: ignore[arg-type]

        def batches(epoch: int) -> Iterator[Batch]:
            order = SeededBatches(size.trials, size.batch_size, seed=0, first=epoch * size.batches)
            source = training_batches(data, order)
            for _ in range(size.batches):
                batch = pictures(next(source), torch.Generator())
                yield _given(batch, batch["image_embeds"])

        return batches
    every = cached_pictures(table, generator)
    # Flat, as targets are.
    flat = every.reshape(len(every), -1)
    data = TrialDataset([_processed(folder)], {"pictures": flat}, table.stimuli.ids, {"pictures": every.shape[1:]})

    def batches_of_workers(epoch: int) -> Iterator[Batch]:
        order: Any = SeededBatches(size.trials, size.batch_size, seed=0, first=epoch * size.batches)
        loader = DataLoader(data, batch_sampler=order, collate_fn=TrialDataset.collate, num_workers=workers)
        source = iter(loader)
        for _ in range(size.batches):
            batch: Any = next(source)
            yield _given(batch, batch["pictures"].float().div_(255))

    return batches_of_workers


def _given(batch: Any, pictures: Any) -> Batch:
    trials = np.array([int(stimulus.removeprefix("nsd")) for stimulus in batch["stimulus_ids"]])
    return {"fmri": batch["fmri"], "pictures": pictures, "trial": trials}


def webdataset_side(folder: Path, size: Size, workers: int) -> Callable[[int], Iterator[Batch]]:
    import torch
    import webdataset
    from torch.utils.data import DataLoader

    urls = [str(path) for path in files_of("webdataset", folder, size)]

    def batches(epoch: int) -> Iterator[Batch]:
        data = (
            webdataset.WebDataset(urls, shardshuffle=len(urls), seed=42 + epoch)
            .shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=random.Random(42 + epoch))
            .decode("torchrgb8")
            .to_tuple("nsdgeneral.npy", "jpg", "coco73k.npy")
            .map_tuple(lambda fmri: fmri[0], lambda picture: picture, lambda number: int(number[0]))
            .batched(size.batch_size, partial=False)
        )
        for fmri, pictures, trials in DataLoader(data, batch_size=None, num_workers=workers):
            yield {
                "fmri": torch.as_tensor(fmri),
                "pictures": torch.as_tensor(pictures).float().div_(255),
                "trial": np.asarray(trials),
            }

    return batches


def shuffled(size: Size, epoch: int) -> list[list[int]]:
    """Trials of each complete batch, for sides that need nothing of this package."""
    order = np.random.default_rng(epoch).permutation(size.trials)[: size.batches * size.batch_size]
    return order.reshape(size.batches, size.batch_size).tolist()


def hdf5_side(dtype: type) -> Callable[[Path, Size, int], Callable[[int], Iterator[Batch]]]:
    def side(folder: Path, size: Size, workers: int) -> Callable[[int], Iterator[Batch]]:
        import torch
        from torch.utils.data import DataLoader

        data = Hdf5Trials(folder, size, dtype)

        def batches(epoch: int) -> Iterator[Batch]:
            every: Any = data
            order = shuffled(size, epoch)
            for batch in DataLoader(every, batch_sampler=order, collate_fn=lambda rows: rows, num_workers=workers):
                pictures = batch["pictures"].to(torch.float32)
                yield {**batch, "pictures": pictures.div_(255) if dtype == np.uint8 else pictures}

        return batches

    return side


class Hdf5Trials:
    """Rows of MindEye2's files, whole batches at a time; opened in the process that reads."""

    def __init__(self, folder: Path, size: Size, dtype: type) -> None:
        self._paths = files_of("hdf5 uint8" if dtype == np.uint8 else "hdf5 float16", folder, size)
        self._trials = size.trials
        self._opened: tuple[Any, Any] | None = None

    def __len__(self) -> int:
        return self._trials

    def __getitems__(self, indices: list[int]) -> Batch:
        import h5py
        import torch

        if self._opened is None:
            betas, images = (h5py.File(path, "r") for path in self._paths)
            self._opened = betas["betas"], images["images"]
        rows = np.sort(indices)
        fmri, pictures = (torch.from_numpy(dataset[rows]) for dataset in self._opened)
        return {"fmri": fmri, "pictures": pictures, "trial": rows}


def hdf5_in_memory_side(folder: Path, size: Size, workers: int) -> Callable[[int], Iterator[Batch]]:
    """What workers would do is to copy what they share, so that there are none."""
    import h5py
    import torch

    betas_file, pictures_file = files_of("hdf5 in memory", folder, size)
    with h5py.File(betas_file, "r") as file:
        betas = torch.from_numpy(file["betas"][:])
    with h5py.File(pictures_file, "r") as file:
        images = torch.from_numpy(file["images"][:])

    def batches(epoch: int) -> Iterator[Batch]:
        for rows in map(torch.tensor, shuffled(size, epoch)):
            yield {"fmri": betas[rows], "pictures": images[rows].to(torch.float32), "trial": rows.numpy()}

    return batches


SIDES: dict[str, Callable[[Path, Size, int], Callable[[int], Iterator[Batch]]]] = {
    "fmri_models": fmri_models_side,
    "webdataset": webdataset_side,
    "hdf5 float16": hdf5_side(np.float16),
    "hdf5 uint8": hdf5_side(np.uint8),
    "hdf5 in memory": hdf5_in_memory_side,
}
WITHOUT_WORKERS = ("hdf5 in memory",)


def compare(folder: Path, size: Size, side: str, batches: Iterator[Batch]) -> None:
    """Looks whether a side delivers the table's trials: each once, its voxels and its picture.

    Raises:
        SystemExit: It does not.
    """
    processed, seen = _processed(folder), []
    for number, batch in enumerate(batches):
        seen += batch["trial"].tolist()
        if number % 16:
            continue
        voxels = np.abs(batch["fmri"].numpy() - processed[batch["trial"]]).max()
        first = int(batch["trial"][0])
        expected = decoded(jpeg(first, size.pixels)) / 255
        levels = np.abs(batch["pictures"][0].numpy() - expected).max()
        if voxels > 1e-6 or levels > 5e-4 or batch["pictures"].shape[2:] != (size.pixels, size.pixels):
            raise SystemExit(f"{side} delivers other numbers: voxels differ by {voxels}, pictures by {levels}.")
    if len(seen) != len(set(seen)) or len(seen) < size.trials - 4 * size.batch_size:
        raise SystemExit(f"{side} delivers {len(seen)} trials, {len(set(seen))} of them different, of {size.trials}.")


def load_size(folder: Path) -> Size:
    return Size(**json.loads((folder / "size.json").read_text()))


def save_size(folder: Path, size: Size) -> None:
    (folder / "size.json").write_text(json.dumps(asdict(size)))
