"""Networks in ONNX files, computed by onnxruntime: no class of the network is needed, and nothing in a file is run."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import FmriModelsError
from ...names import one_line
from ...reading import check_regular_file

# Numbers of fields in ONNX's files, which are messages of protobuf.
_GRAPH_OF_MODEL, _OUTPUT_OF_GRAPH, _NAME_OF_VALUE = 7, 12, 1


class OnnxReader:
    """What a value inside an ONNX graph is, of preprocessed pictures.

    Args:
        path: The file.
        node: Name of the value; empty for the graph's first output.
        channels_last: Whether the graph takes (n, h, w, 3).
        threads: Of onnxruntime; None takes PyTorch's number.

    Raises:
        FmriModelsError: onnxruntime is not installed, the file is no model, or it has no such value.
    """

    def __init__(
        self, path: str | PathLike, node: str = "", channels_last: bool = False, threads: int | None = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise FmriModelsError(
                "Networks in ONNX files need the package onnxruntime, which is not installed; pip install onnxruntime."
            ) from error
        path = check_regular_file(path, "network", "give an ONNX file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                _with_output(Path(path), node), options, providers=["CPUExecutionProvider"]
            )
        # onnxruntime has classes of errors of its own, without a base that is public.
        except Exception as error:
            wanted = f" or has no value {node!r}" if node else ""
            raise FmriModelsError(
                f"{one_line(path)} is no readable ONNX file{wanted} ({one_line(error, 120)}); check the file and the name."
            ) from error
        self.node, self.channels_last = node or self._session.get_outputs()[0].name, channels_last

    def __call__(self, pixels: Tensor) -> Tensor:
        """(n, …) float32 of preprocessed pictures (n, 3, h, w)."""
        given = pixels.permute(0, 2, 3, 1) if self.channels_last else pixels
        found = self._session.run([self.node], {self._session.get_inputs()[0].name: given.contiguous().cpu().numpy()})
        return torch.from_numpy(found[0])


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
    digits.append(length)
    return bytes([number << 3 | 2]) + bytes(digits) + content
