"""The trial table's schema: names of files and columns, Arrow types, and how large a table may be. The one place."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError

SCHEMA_VERSION = 1

TABLE_FILE = "table.json"
# The key of it that says what training would refuse.
FINDINGS = "findings"
TRIALS_FOLDER = "trials"
STIMULI_FOLDER = "stimuli"
VOXELS_FOLDER = "voxels"
SPLITS_FOLDER = "splits"
NOISE_FREE_FOLDER = "noise_free"

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
# Trials without a stimulus, in no split's rows: they are of this part in every split and fold. Of what kind one is, its
# run says: from 1001 on it is rest, from 2001 on viewing of pictures that are withheld, anything else is not known.
UNLABELLED = "unlabelled"
UNLABELLED_RUNS = {"rest": range(1001, 2001), "viewing": range(2001, 3001)}
UNLABELLED_PARTS = (UNLABELLED, *(f"{UNLABELLED}_{kind}" for kind in UNLABELLED_RUNS))


def labelled_parts(parts: Iterable[str]) -> list[str]:
    """Those of some parts whose trials have stimuli."""
    return [part for part in parts if part in SPLITS]


def distinct_stimuli(stimulus_ids: np.ndarray) -> np.ndarray:
    """(n,) ids, where each trial without a stimulus has a name of its own, which is no id.

    For whatever counts stimuli or finds repetitions: such trials are no repetitions of each other.
    """
    return np.array([name or f" {place}" for place, name in enumerate(stimulus_ids.tolist())], dtype=str)


# As files of trials are called.
FILE_PARTS = (*SPLITS, UNLABELLED)
DEFAULT_SPLIT = "default"

# Far beyond any experiment, and small enough that no file makes a reader run out of memory.
MAX_VOXELS = 2**21  # of a subject
MAX_TRIALS = 2**20  # of a subject, in one part of the split
MAX_STIMULI = 2**21
MAX_SPLIT_ROWS = 2**24
MAX_FOLDS = 10_000
MAX_PICTURE_BYTES = 64 * 2**20
MAX_INT32 = 2**31 - 1

SIMULATED_TRUTH = "simulated truth"
TRAINING_REPETITIONS = "training repetitions"
RELEASE = "release"
NOISE_CEILING_SOURCES = (SIMULATED_TRUTH, TRAINING_REPETITIONS, RELEASE)

TRIAL_COLUMNS = ("subject", "session", "run", "trial", "repetition", "stimulus_id")
# Which block of its run a trial is of (0: not known), and whether its stimulus was imagined and not shown. A table has
# them where somebody knows; its files are as they were without.
BLOCK, IMAGERY = "block", "imagery"
OPTIONAL_TRIAL_COLUMNS = (BLOCK, IMAGERY)
FMRI = "fmri"
# A moving stimulus: the file that it is part of, from which second on and how long, and frames of it.
CLIP = "clip"
MAX_FRAMES = 1024
MODALITIES = ("fmri", "eeg")
# The element's path inside Parquet, needed to choose its encoding.
FMRI_ELEMENT = "fmri.list.element"

_TRIAL_FIELDS = [
    pa.field("subject", pa.string()),
    pa.field("session", pa.int32()),
    pa.field("run", pa.int32()),
    pa.field("trial", pa.int32()),
    pa.field("repetition", pa.int32()),
    pa.field("stimulus_id", pa.string()),
]
_OPTIONAL_TRIAL_FIELDS = {BLOCK: pa.field(BLOCK, pa.int32()), IMAGERY: pa.field(IMAGERY, pa.bool_())}


def trials_schema(num_voxels: int, dtype: np.dtype | type | str, optional: Iterable[str] = ()) -> pa.Schema:
    """Schema of `trials/<subject>/<split>-*.parquet`; `dtype` is float16 or float32.

    Args:
        num_voxels: How many values each trial has.
        dtype: Of the betas.
        optional: Which of [`OPTIONAL_TRIAL_COLUMNS`] the file has.
    """
    there = set(optional)
    known = [field for name, field in _OPTIONAL_TRIAL_FIELDS.items() if name in there]
    return _with_features(pa.schema([*_TRIAL_FIELDS, *known, pa.field(FMRI, fmri_type(num_voxels, dtype))]))


def trials_schemas(num_voxels: int, optional: Iterable[str] = ()) -> list[pa.Schema]:
    """The two schemas that a file of trials with these optional columns may have."""
    there = list(optional)
    return [trials_schema(num_voxels, dtype, there) for dtype in (np.float16, np.float32)]


def noise_free_schema(num_voxels: int) -> pa.Schema:
    """Schema of `noise_free/<subject>.parquet`: the response that a simulator would give without noise."""
    return _with_features(
        pa.schema([pa.field("stimulus_id", pa.string()), pa.field(FMRI, fmri_type(num_voxels, np.float32))])
    )


def clip_type() -> pa.DataType:
    """The type of the column `clip`, null where a stimulus does not move."""
    return pa.struct(
        [
            pa.field("file", pa.string()),
            pa.field("start", pa.float32()),
            pa.field("seconds", pa.float32()),
            pa.field("frames", pa.list_(pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))),
        ]
    )


def stimuli_schema(clips: bool = False) -> pa.Schema:
    """Schema of `stimuli/stimuli-*.parquet`; `image` is the struct that `datasets` knows as its Image feature.

    Args:
        clips: Whether stimuli may move, so that there is the column `clip`; `image` is then the picture that stands for
            a clip.
    """
    return _with_features(
        pa.schema(
            [
                pa.field("stimulus_id", pa.string()),
                pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
                pa.field("captions", pa.list_(pa.string())),
                pa.field("category", pa.string()),
                pa.field("factors", pa.string()),
                pa.field("content_sha256", pa.string()),
                *([pa.field(CLIP, clip_type())] if clips else []),
            ]
        )
    )


def voxels_schema(dropped: bool = False) -> pa.Schema:
    """Schema of `voxels/<subject>.parquet`, a row a voxel in the order of the `fmri` column.

    Args:
        dropped: Whether voxels were dropped, so that each row says which column of how many it was.
    """
    source = [pa.field("source_index", pa.int32()), pa.field("source_width", pa.int32())] if dropped else []
    return _with_features(
        pa.schema(
            [
                pa.field("index", pa.int32()),
                pa.field("roi", pa.string()),
                pa.field("x", pa.float32()),
                pa.field("y", pa.float32()),
                pa.field("z", pa.float32()),
                pa.field("space", pa.string()),
                pa.field("ncsnr", pa.float32()),
                pa.field("noise_ceiling", pa.float32()),
                pa.field("noise_ceiling_source", pa.string()),
                pa.field("noise_ceiling_repetitions", pa.int32()),
                *source,
            ]
        )
    )


def splits_schema(
    by: str, seed: int | None, repeats_stimuli: str, made_with: Mapping[str, str | int | float] | None = None
) -> pa.Schema:
    """Schema of `splits/<name>.parquet`; how the split was made travels in the schema's metadata.

    Args:
        by: What it is split by.
        seed: The seed that drew it.
        repeats_stimuli: Why stimuli are in several parts; empty where none is.
        made_with: What else decided it, such as whose embeddings; the file of a split without any is as it was.
    """
    schema = _with_features(
        pa.schema(
            [
                pa.field("fold", pa.int32()),
                pa.field("subject", pa.string()),
                pa.field("trial", pa.int32()),
                pa.field("stimulus_id", pa.string()),
                pa.field("split", pa.string()),
            ]
        )
    )
    how: dict[str, Any] = {"schema": SCHEMA_VERSION, "by": by, "seed": seed, "repeats_stimuli": repeats_stimuli}
    if made_with:
        how["made_with"] = dict(made_with)
    return schema.with_metadata({**schema.metadata, "fmri_models": json.dumps(how)})


def fmri_type(num_voxels: int, dtype: np.dtype | type | str) -> pa.DataType:
    """The type of the `fmri` column: a list of `num_voxels` float16 or float32."""
    return pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), num_voxels)


def fmri_array(fmri: np.ndarray) -> pa.FixedSizeListArray:
    """Rows of a (trials, voxels) matrix as an Arrow column, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(fmri).reshape(-1)), fmri.shape[1])


def fmri_matrix(column: pa.ChunkedArray | pa.Array, num_voxels: int) -> np.ndarray:
    """The (trials, voxels) matrix behind an `fmri` column.

    Raises:
        FmriModelsError: The column is no list of `num_voxels` float16 or float32, or has nulls.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # Newer pyarrow gives a chunked array back where there is no chunk at all.
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    found = array.type
    if not pa.types.is_fixed_size_list(found) or str(found.value_type) not in ("halffloat", "float"):
        raise FmriModelsError(f"The column fmri has the type {found}; expected a fixed-length list of float16 or 32.")
    if found.list_size != num_voxels:
        raise FmriModelsError(f"The column fmri has {found.list_size} values a trial; expected {num_voxels}.")
    values = array.flatten()
    if array.null_count or values.null_count:
        raise FmriModelsError("The column fmri has missing values (null); expected a number for every voxel.")
    return values.to_numpy(zero_copy_only=True).reshape(len(array), num_voxels)


def _with_features(schema: pa.Schema) -> pa.Schema:
    """Adds the metadata by which `datasets` recognises its feature types, so that images decode without any script."""
    features = {field.name: _feature(field) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(field: pa.Field) -> dict:
    of_values = field.type
    if field.name == "image":
        return {"_type": "Image"}
    if field.name == CLIP:
        frames = {"feature": {"_type": "Image"}, "_type": "List"}
        return {part.name: frames if part.name == "frames" else _value(part.type) for part in of_values}
    if pa.types.is_fixed_size_list(of_values):
        return {"feature": _value(of_values.value_type), "length": of_values.list_size, "_type": "List"}
    if pa.types.is_list(of_values):
        return {"feature": _value(of_values.value_type), "_type": "List"}
    return _value(of_values)


def _value(of_values: pa.DataType) -> dict:
    return {"dtype": {"halffloat": "float16", "float": "float32"}.get(str(of_values), str(of_values)), "_type": "Value"}
