"""Networks in ONNX files, computed by onnxruntime: no class of the network is needed, and nothing in a file is run."""

import importlib.util
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import FmriModelsError
from ...names import one_line
from ...reading import check_regular_file
from .feature_extractor import NamedExtractor
from .network_extractor import NetworkExtractor
from .preprocessing import Preprocessing
from .torch_networks import not_installed
from .weights_files import file_sha256

# Numbers of fields in ONNX's files, which are messages of protobuf.
_GRAPH_OF_MODEL, _OUTPUT_OF_GRAPH, _NAME_OF_VALUE = 7, 12, 1
# onnxruntime says what is wrong in an exception, and need not write it to the terminal as well.
_FATAL_ALONE = 4


class OnnxReader:
    """A value inside an ONNX graph, of preprocessed pictures.

    Args:
        path: The file.
        node: Name of the value; empty for the graph's first output.
        channels_last: Whether the graph takes (n, h, w, 3).
        bgr: Whether it takes blue first.

    Raises:
        FmriModelsError: onnxruntime is not installed, the file is no model, or it has no such value.
    """

    def __init__(self, path: str | PathLike, node: str = "", channels_last: bool = False, bgr: bool = False) -> None:
        onnxruntime = _onnxruntime()
        path = check_regular_file(path, "network", "give an ONNX file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _FATAL_ALONE
        try:
            model = _with_output(path, node)
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # onnxruntime has classes of errors of its own, without a base that is public.
        except Exception as error:
            wanted = f" with a value {node!r} in its graph" if node else ""
            raise FmriModelsError(
                f"{one_line(path)} is no ONNX file{wanted} that onnxruntime reads ({one_line(error, 120)}); check the "
                "file and the name."
            ) from error
        self.node = node or self._session.get_outputs()[0].name
        self.channels_last, self.bgr = channels_last, bgr

    def __call__(self, pixels: Tensor) -> Tensor:
        """(n, …) of preprocessed pictures (n, 3, h, w), red first."""
        given = pixels.flip(1) if self.bgr else pixels
        given = given.permute(0, 2, 3, 1) if self.channels_last else given
        found = self._session.run([self.node], {self._session.get_inputs()[0].name: given.contiguous().cpu().numpy()})
        return torch.from_numpy(found[0])


@dataclass(frozen=True)
class InstalledOnnx(NamedExtractor):
    """A network whose ONNX file comes with a package; of the package, nothing is imported.

    Args:
        distribution: What pip calls the package.
        package: What Python calls it.
        file: In the package.
        node: Name of the value that is read.
        preprocessing: As the network was trained.
        channels_last: As of [`OnnxReader`].
        bgr: As of [`OnnxReader`].
    """

    distribution: str = ""
    package: str = ""
    file: str = ""
    node: str = ""
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(224))
    channels_last: bool = False
    bgr: bool = False

    def load(self, folder: str | PathLike | None = None) -> NetworkExtractor:
        path = self._path()
        read = OnnxReader(path, self.node, self.channels_last, self.bgr)
        return NetworkExtractor(self.name, read, self.preprocessing, file_sha256(path), file=self.file, node=read.node)

    def check(self, folder: str | PathLike | None = None) -> None:
        _onnxruntime()
        self._path()

    def _path(self) -> Path:
        found = importlib.util.find_spec(self.package)
        path = None if found is None or found.origin is None else Path(found.origin).parent / self.file
        if path is None or not path.is_file():
            raise FmriModelsError(not_installed(self.distribution))
        return path


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise FmriModelsError(not_installed("onnxruntime")) from error
    return onnxruntime


def _with_output(path: Path, node: str) -> bytes | str:
    """A model that puts out one more value.

    Messages of protobuf that follow each other are one message whose lists are joined, so that a graph with nothing but
    an output, put behind the model, adds that output to its graph.
    """
    if not node:
        return str(path)
    value = _field(_NAME_OF_VALUE, node.encode())
    return path.read_bytes() + _field(_GRAPH_OF_MODEL, _field(_OUTPUT_OF_GRAPH, value))


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf with bytes: its number, their length, and they."""
    length, digits = len(content), bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + content
