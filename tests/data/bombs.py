"""Small files that claim, or become, gigabytes: each is tried within a gibibyte, in a process of its own.

Run with a folder and names as arguments; prints a line of each, with `ok:` or what happened instead.
"""

import json
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch  # noqa: F401 (its libraries alone are larger than the bound)

from fmri_models.data import TrialTable, TrialTableWriter, schema
from fmri_models.data.arrays import prepare_arrays
from fmri_models.data.parquet import file_sha256
from fmri_models.data.pictures import decode_picture
from fmri_models.data.stimuli import read_stimuli
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError

GIBIBYTE = 2**30
SECONDS = 20
STIMULI = "stimuli/stimuli-00000-of-00001.parquet"
TRIALS = "trials/subj01/train-00000-of-00001.parquet"
SPLIT = "splits/default.parquet"
VOXELS = "voxels/subj01.parquet"


def write_table(path: Path) -> None:
    with TrialTableWriter(path, "t") as writer:
        writer.add_stimuli([{"stimulus_id": f"s{i}", "image": np.full((4, 4), i, np.uint8)} for i in range(4)])
        writer.add_trials("subj01", "train", ["s0", "s1"], np.eye(2, 3))
        writer.add_trials("subj01", "test", ["s2", "s3"], np.eye(2, 3))


def replace(path: Path, name: str, rows: pa.Table, **changes: object) -> None:
    pq.write_table(rows, path / name, compression="zstd", store_schema=False)
    recorded(path, name, **changes)


def recorded(path: Path, name: str, **changes: object) -> None:
    metadata = json.loads((path / "table.json").read_text())
    metadata.update(changes)
    metadata["files"][name] = {"sha256": file_sha256(path / name), "bytes": (path / name).stat().st_size}
    (path / "table.json").write_text(json.dumps(metadata))


def repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    indices = pa.array(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], kind))


def many_rows(path: Path) -> None:
    count = 20_000_000
    zeros = pa.array(np.zeros(count, np.int32))
    text = repeated("s0", pa.string(), count)
    replace(path, SPLIT, pa.table({"fold": zeros, "subject": text, "trial": zeros, "stimulus_id": text, "split": text}))


def many_trials(path: Path) -> None:
    count = 5_000_000
    columns: dict = dict.fromkeys(schema.TRIAL_COLUMNS, pa.array(np.zeros(count, np.int32)))
    columns |= dict.fromkeys(("subject", "stimulus_id"), repeated("s0", pa.string(), count))
    fmri = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(count, np.float16)), 1)
    replace(path, TRIALS, pa.table({**columns, "fmri": fmri}), num_voxels={"subj01": 1})


def large_picture(path: Path) -> None:
    stimuli = pq.read_table(path / STIMULI)
    pictures = [{"bytes": bytes(600_000_000), "path": "a.png"}, *stimuli["image"].to_pylist()[1:]]
    replace(path, STIMULI, stimuli.set_column(1, stimuli.schema.field("image"), pa.array(pictures)))


def one_picture_many_times(path: Path) -> None:
    count = 2000
    picture = pa.array([b"\x00" * 50_000_000], pa.binary())
    images = pa.StructArray.from_arrays(
        [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), picture),
            repeated("p", pa.string(), count),
        ],
        ["bytes", "path"],
    )
    rows = {
        "stimulus_id": [f"s{i}" for i in range(count)],
        "image": images,
        "captions": pa.array([[]] * count, pa.list_(pa.string())),
        **{name: pa.nulls(count, pa.string()) for name in ("category", "factors", "content_sha256")},
    }
    replace(path, STIMULI, pa.table(rows))


def long_text_many_times(path: Path) -> None:
    count = 200_000
    rows = {
        "stimulus_id": [f"s{i}" for i in range(count)],
        "image": pa.nulls(count, schema.stimuli_schema().field("image").type),
        "captions": pa.ListArray.from_arrays(
            np.arange(count + 1, dtype=np.int32), repeated("x" * 1_000_000, pa.string(), count)
        ),
        "factors": repeated("x" * 1_000_000, pa.string(), count),
        **{name: pa.nulls(count, pa.string()) for name in ("category", "content_sha256")},
    }
    replace(path, STIMULI, pa.table(rows))


def wide_voxels(path: Path) -> None:
    replace(path, VOXELS, pq.read_table(path / VOXELS), num_voxels={"subj01": 2**63 - 1})


def zeros_zip(path: Path) -> None:
    with zipfile.ZipFile(path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
        for _ in range(8):
            file.write(bytes(2**24))


def lying_zip(path: Path) -> None:
    zeros_zip(path)
    data = bytearray((path / "p.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    (path / "p.zip").write_bytes(data)


def packed_zip(method: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path / "p.zip", "w", method) as archive, archive.open("a.png", "w") as file:
            for _ in range(8):
                file.write(bytes(2**24))

    return write


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width + 1) * height, 10**7)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def long_line(path: Path) -> None:
    with (path / "e.csv").open("wb") as file:
        file.write(b"stimulus_id\n")
        for _ in range(5):
            file.write(b"s" * 2**24)


def many_lines(path: Path) -> None:
    (path / "e.csv").write_bytes(b"stimulus_id\n" + b"a\n" * 2_000_000)


def deep_json(path: Path) -> None:
    (path / "table.json").write_text('{"schema": 1, "name": ' + "[" * 100_000)


def use(path: Path) -> None:
    table = TrialTable.open(path)
    for subject in table.subjects:
        for name in table.split_names():
            for part in schema.SPLITS:
                trials = table.trials(subject, part, name)
                trials.fmri()
                table.stimuli.images(trials.stimulus_ids)
        table.voxels(subject)
        table.noise_free(subject)
    table.stimuli.captions()
    table.stimuli.factors()


def pictures_of(path: Path) -> None:
    for record in read_stimuli(path / "p.zip"):
        decode_picture(record["image"], "a")


def prepare(path: Path) -> None:
    np.save(path / "x.npy", np.zeros((4, 2), np.float32))
    (path / "p").mkdir()
    prepare_arrays(path / "x.npy", path / "e.csv", path / "p", path / "out")


def checked(path: Path) -> None:
    if findings := validate_table(path):
        raise FmriModelsError(findings[0])


BOMBS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "a split of 20 million rows": (many_rows, use),
    "a split of 20 million rows, validated": (many_rows, checked),
    "5 million trials": (many_trials, use),
    "5 million trials, validated": (many_trials, checked),
    "a picture of 600 MB": (large_picture, use),
    "a picture of 600 MB, validated": (large_picture, checked),
    "one picture 2,000 times": (one_picture_many_times, use),
    "one picture 2,000 times, validated": (one_picture_many_times, checked),
    "one text 200,000 times": (long_text_many_times, use),
    "one text 200,000 times, validated": (long_text_many_times, checked),
    "2^63 - 1 voxels": (wide_voxels, use),
    "2^63 - 1 voxels, validated": (wide_voxels, checked),
    "a table.json 100,000 deep": (deep_json, use),
    "a zip of zeros": (zeros_zip, pictures_of),
    "a zip whose directory lies": (lying_zip, pictures_of),
    "a zip by bzip2": (packed_zip(zipfile.ZIP_BZIP2), pictures_of),
    "a zip by LZMA": (packed_zip(zipfile.ZIP_LZMA), pictures_of),
    "a PNG of 50,000 x 50,000": (lambda path: None, lambda path: decode_picture(png(50_000, 50_000), "a")),
    "a PNG of 178,000,000 x 1": (lambda path: None, lambda path: decode_picture(png(178_000_000, 1), "a")),
    "a PNG of 100,000,000 x 1": (lambda path: None, lambda path: decode_picture(png(100_000_000, 1), "a")),
    "a line of 80 MB": (long_line, prepare),
    "2 million lines": (many_lines, prepare),
}


def attempt(name: str, place: Path) -> str:
    """What becomes of one of them."""
    write, read = BOMBS[name]
    path = place / "".join(c if c.isalnum() else "_" for c in name)
    write_table(path)
    write(path)
    # Making them may need more than reading them may.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + GIBIBYTE, resource.RLIM_INFINITY))
    start = time.monotonic()
    try:
        read(path)
        outcome = "WRONG: read"
    except FmriModelsError as error:
        outcome = f"ok: {error}"
    except BaseException as error:
        outcome = f"WRONG: {type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    seconds = time.monotonic() - start
    if seconds > SECONDS:
        outcome = f"WRONG: took {seconds:.0f} s: {outcome}"
    return f"{outcome} [{seconds:.1f} s]"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for bomb in sys.argv[2:] or BOMBS:
        print(f"{bomb}: {attempt(bomb, place)}", flush=True)
