"""A file of the published shape of digits69, with made-up contents."""

from pathlib import Path

import numpy as np
import scipy.io


def write_digits(path: Path) -> Path:
    rng = np.random.default_rng(0)
    contents = {}
    for part, rows in (("Trn", 90), ("Test", 10)):
        contents[f"fmri{part}"] = rng.normal(0, 0.02, (rows, 3092))
        contents[f"stim{part}"] = rng.integers(0, 256, (rows, 784), dtype=np.uint8)
        contents[f"label{part}"] = np.repeat([[1], [2]], rows // 2, axis=0).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, contents)
    return path
