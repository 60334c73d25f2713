"""Exact nearest neighbours by cosine, in galleries that need not fit into memory.

Similarities are estimated in float32 first. What the estimate's rounding error cannot rule out is scored again in
float64, so that the result is that of float64 and costs little more than one product of matrices in float32.
"""

import math
import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch

from .errors import FmriModelsError
from .in_memory import as_numbers, is_bfloat16

Query = Literal["brain", "image"]
# A tensor or array; a read-only memory map is read once from its beginning to its end.
Embeddings = torch.Tensor | np.ndarray

# How many are shown of each query where nobody says how many.
DEFAULT_TOP_K = 5
# Rounding of float32: half the distance from 1 to the next number.
_UNIT_ROUNDOFF = 2.0**-24
_DOUBLE_ROUNDOFF = 2.0**-53
_QUERIES_AT_ONCE = 1024
_QUERY_VALUES_AT_ONCE = 2**26
_GALLERY_VALUES_AT_ONCE = 2**23
# Values of which the cache of a CPU's core holds a few copies.
_CACHED_VALUES = 2**19
# Gallery values that a thread compares at a time: few enough for the caches, and so many that threads, which wait for
# each other after each such piece, seldom do.
_VALUES_A_PIECE = 2**21
_LINE_VALUES = 16
# Pairs (query, gallery row) whose cosines are estimated, and those that are scored in float64, at a time.
_ESTIMATES_AT_ONCE = 2**26
_PAIRS_AT_ONCE = 2**20
# Columns that are summed up in float32; their sums are added in float64. The error of a sum grows with its terms, so
# that wide embeddings (MindEye's tokens have 197,376 values) would have to be scored again one and all.
_COLUMNS_A_SUM = 1024
# Squares of values in this range neither overflow nor lose digits in float32.
_PLAIN_NORMS = (1e-15, 1e15)


class Retrieved(NamedTuple):
    """The most similar gallery rows of each query, the best first.

    Args:
        similarities: (N, k) float64 cosines.
        indices: (N, k) int64 rows of the gallery.
    """

    similarities: torch.Tensor
    indices: torch.Tensor


def retrieve(query: Embeddings, gallery: Embeddings, top_k: int = 1, chunk_size: int | None = None) -> Retrieved:
    """The k gallery rows of the largest cosine with each query, exactly and in bounded memory.

    The order is that of the cosines in float64; among equal ones (a gallery may hold a picture twice) the smaller index
    comes first. It depends neither on the size of the chunks nor on the number of threads. A row that occurs several
    times takes several places.

    Args:
        query: (N, ...) embeddings; on a GPU, the search happens there.
        gallery: (M, ...) embeddings of the same size in any floating type, such as a memory-mapped float16 array.
        top_k: Number of rows to return.
        chunk_size: Gallery rows that are compared at a time; None for 32 MiB of them at most.

    Returns:
        [`Retrieved`], on the CPU.

    Raises:
        FmriModelsError: Embedding sizes differ, a vector has no direction (all zero, NaN or infinite), or the gallery
            has fewer than `top_k` rows.
    """
    query, gallery = _flat(query, "query"), _flat(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise FmriModelsError(
            f"A query has {query.shape[1]} values and a gallery row {gallery.shape[1]}; embed both alike."
        )
    if not 1 <= top_k <= len(gallery):
        raise FmriModelsError(f"top_k is {top_k}, but the gallery has {len(gallery)} rows; choose 1 to that.")
    size = query.shape[1]
    num_queries = max(1, min(_QUERIES_AT_ONCE, _QUERY_VALUES_AT_ONCE // size))
    most_rows = min(_GALLERY_VALUES_AT_ONCE // size, _ESTIMATES_AT_ONCE // max(1, min(num_queries, len(query))))
    chunk_size = chunk_size or max(1, most_rows)
    found = [
        _search(_tensor(query[start : start + num_queries]), gallery, top_k, chunk_size)
        for start in range(0, len(query), num_queries)
    ]
    similarities = np.concatenate([each[0] for each in found]) if found else np.empty((0, top_k))
    indices = np.concatenate([each[1] for each in found]) if found else np.empty((0, top_k), np.int64)
    return Retrieved(torch.from_numpy(similarities), torch.from_numpy(indices))


def count_duplicates(gallery: Embeddings) -> int:
    """How many rows of a gallery repeat an earlier one, bit for bit.

    Rows are compared by a random 64-bit sum of their bytes, by which two different ones among a million agree with a
    chance of about 3e-8.

    Args:
        gallery: (M, ...) embeddings.
    """
    gallery = _flat(gallery, "gallery")
    sums = np.empty(len(gallery), np.uint64)
    chunk_size = max(1, _GALLERY_VALUES_AT_ONCE // gallery.shape[1])
    for start, chunk in _chunks(gallery, chunk_size):
        sums[start : start + len(chunk)] = _sums(_words(chunk))
    return len(sums) - len(np.unique(sums))


def _search(query: torch.Tensor, gallery: Embeddings, top_k: int, chunk_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) cosines and indices for a chunk of queries."""
    best = np.full((len(query), top_k), -np.inf)
    index = np.full((len(query), top_k), -1, np.int64)
    unit, _ = _estimate_units(query, "query", 0)
    exact = _units(query.cpu().double().numpy())
    # The worst case of a product's and a norm's sum, in any order of summation, and of the few other roundings.
    error = (1.5 * min(query.shape[1], _COLUMNS_A_SUM) + 16) * _UNIT_ROUNDOFF
    # Rows that begin where cache lines do take a third of the time off the products.
    width = math.ceil(min(chunk_size, len(gallery)) / _LINE_VALUES) * _LINE_VALUES
    buffer = unit.new_empty(len(unit), width, dtype=_estimate_dtype(unit))
    for start, chunk in _chunks(gallery, chunk_size):
        chunk = chunk.to(unit.device)
        estimate = _estimates(unit, chunk, start, buffer[:, : len(chunk)])
        possible = _possible(estimate, best[:, -1], top_k, error)
        if _count(possible) > _PAIRS_AT_ONCE:
            possible = _fewer(possible, exact, chunk, best[:, -1], top_k)
        for rows, columns in _pairs(possible):
            scores = _cosines(exact, chunk, rows, columns)
            _merge(best, index, rows, columns + start, scores)
    return best, index


def _estimates(unit: torch.Tensor, chunk: torch.Tensor, first: int, result: torch.Tensor) -> torch.Tensor:
    """Cosines (N, M) of unit queries with gallery rows, written into `result`; `first` is the chunk's first row."""
    # On a CPU, rows of short vectors are converted, measured and multiplied while they are in its caches.
    in_pieces = not chunk.is_cuda and chunk.shape[1] <= _COLUMNS_A_SUM
    size = max(1, _VALUES_A_PIECE * torch.get_num_threads() // chunk.shape[1]) if in_pieces else len(chunk)
    for start in range(0, len(chunk), size):
        scaled, norms = _estimate_units(chunk[start : start + size], "gallery", first + start, divide=False)
        _multiply(unit, scaled, result[:, start : start + size]).div_(norms)
    return result


def _multiply(one: torch.Tensor, other: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Inner products, written into `result` (N, M); see [`_estimate_dtype`]."""
    with _full_precision():
        if result.dtype == torch.float32:
            return torch.mm(one, other.T, out=result)
        result.zero_()
        for left, right in zip(one.split(_COLUMNS_A_SUM, 1), other.split(_COLUMNS_A_SUM, 1), strict=True):
            result += left @ right.T
        return result


def _estimate_dtype(unit: torch.Tensor) -> torch.dtype:
    """Float32 where vectors are short; the sums of many short products' sums are added up in float64."""
    return torch.float32 if unit.shape[1] <= _COLUMNS_A_SUM else torch.float64


def _norms(vectors: torch.Tensor) -> torch.Tensor:
    """(M,) float32 lengths, summed up as the products are."""
    norms = [torch.linalg.vector_norm(columns, dim=1).double() for columns in vectors.split(_COLUMNS_A_SUM, dim=1)]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0).float()


def _possible(estimate: torch.Tensor, worst: np.ndarray, top_k: int, error: float) -> torch.Tensor:
    """Which pairs (N, M) of queries and gallery rows may be among the best.

    An estimate is off by at most `error`: a pair can only displace the worst of the best if its estimate reaches that
    one's cosine less the error, and only be among the chunk's own best if it reaches the chunk's k-th estimate less
    twice the error.
    """
    floor = torch.from_numpy(worst - error).to(estimate)[:, None]
    possible = estimate >= floor
    if _count(possible) > 4 * top_k * len(estimate) and top_k < estimate.shape[1]:
        own = estimate.topk(top_k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
        possible &= estimate >= own - 2 * error
    return possible


def _fewer(
    possible: torch.Tensor, query: np.ndarray, chunk: torch.Tensor, worst: np.ndarray, top_k: int
) -> torch.Tensor:
    """Those of the pairs that are left where float32 tells too few apart: rows that are (nearly) one another's copies.

    Of equal rows the first k come before all others, and products of float64 tell nearly equal ones apart.
    """
    possible = possible & torch.from_numpy(_first_copies(_words(chunk), top_k)).to(possible.device)
    units = _units(chunk.cpu().double().numpy())
    # Of a product as of a cosine, in any order of summation.
    error = (2 * query.shape[1] + 32) * _DOUBLE_ROUNDOFF
    size = max(1, _VALUES_A_PIECE // len(units))
    for start in range(0, len(query), size):
        here = slice(start, start + size)
        estimate = torch.from_numpy(query[here] @ units.T)
        possible[here] &= _possible(estimate, worst[here], top_k, error).to(possible.device)
    return possible


def _first_copies(words: np.ndarray, top_k: int) -> np.ndarray:
    """(M,) whether fewer than k earlier rows are the same, bit for bit."""
    _, firsts, group = np.unique(_sums(words), return_index=True, return_inverse=True)
    # Different rows of the same sum count as nothing's copies.
    copies = np.flatnonzero((words == words[firsts[group]]).all(axis=1))
    ordered = copies[np.argsort(group[copies], kind="stable")]
    ranks = np.arange(len(ordered)) - np.searchsorted(group[ordered], group[ordered])
    result = np.ones(len(words), bool)
    result[ordered] = ranks < top_k
    return result


def _pairs(possible: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the queries and gallery rows that are possible, in pieces of whole queries."""
    ends = [len(possible)]
    if _count(possible) > _PAIRS_AT_ONCE:
        counts = np.array([_count(row) for row in possible]).cumsum()
        ends = [
            *(np.flatnonzero(np.diff(counts // _PAIRS_AT_ONCE)) + 1).tolist(),
            len(possible),
        ]
    start = 0
    for end in ends:
        piece = possible[start:end]
        if piece.is_cuda:
            rows, columns = (each.cpu().numpy() for each in piece.nonzero(as_tuple=True))
        else:
            # NumPy finds the few among many several times as fast as torch does on a CPU.
            rows, columns = np.divmod(np.flatnonzero(piece.numpy()), piece.shape[1])
        if len(rows):
            yield rows + start, columns
        start = end


def _count(flags: torch.Tensor) -> int:
    # NumPy counts several times as fast as torch does on a CPU.
    return int(flags.count_nonzero()) if flags.is_cuda else int(np.count_nonzero(flags.numpy()))


def _cosines(query: np.ndarray, chunk: torch.Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Cosines of pairs in float64, from unit queries; NumPy sums each row alike, so that equal rows stay equal."""
    scores = np.empty(len(rows))
    size = max(1, _CACHED_VALUES // query.shape[1])
    # Pairs by gallery row, so that each row is converted once.
    order = np.argsort(columns, kind="stable")
    unique, begins, position = np.unique(columns[order], return_index=True, return_inverse=True)
    begins = np.append(begins, len(order))

    def score(first: int, gallery_rows: np.ndarray) -> None:
        end, vectors = begins[first + len(gallery_rows)], _units(gallery_rows)
        for start in range(begins[first], end, size):
            here = slice(start, min(start + size, end))
            products = query[rows[order[here]]]
            products *= vectors[position[here] - first]
            scores[order[here]] = products.sum(axis=1)

    # NumPy's part takes as many threads as torch's products, each with rows of its own.
    num_threads = torch.get_num_threads()
    firsts = range(0, len(unique), size)
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(firsts), num_threads):
            together = firsts[start : start + num_threads]
            for _ in pool.map(score, together, [_doubles(chunk, unique[each : each + size]) for each in together]):
                pass
    return scores


def _doubles(chunk: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    return chunk[torch.from_numpy(rows).to(chunk.device)].cpu().double().numpy()


def _units(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; the largest value is divided out first, so that no square over- or underflows."""
    vectors = vectors / np.maximum(vectors.max(axis=1, keepdims=True), -vectors.min(axis=1, keepdims=True))
    vectors /= np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return vectors


def _merge(best: np.ndarray, index: np.ndarray, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray) -> None:
    """Takes scored pairs into the best of their queries, in place."""
    top_k = best.shape[1]
    queries, position = np.unique(rows, return_inverse=True)
    owner = np.concatenate([np.repeat(np.arange(len(queries)), top_k), position])
    every = np.concatenate([best[queries].ravel(), scores])
    where = np.concatenate([index[queries].ravel(), columns])
    order = np.lexsort((where, -every, owner))
    first = np.searchsorted(owner[order], np.arange(len(queries)))
    chosen = order[first[:, None] + np.arange(top_k)]
    best[queries], index[queries] = every[chosen], where[chosen]


def _estimate_units(
    vectors: torch.Tensor, what: str, first: int, divide: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 vectors that can be multiplied without over- or underflow, and their norms; divided by them if asked for.

    Raises:
        FmriModelsError: A vector has no direction.
    """
    scaled = vectors.float()
    norms = _norms(scaled)
    odd = ~((norms > _PLAIN_NORMS[0]) & (norms < _PLAIN_NORMS[1]))
    if odd.any():
        rows = odd.nonzero()[:, 0]
        exact = vectors[rows].cpu().double()
        largest = exact.abs().amax(dim=1, keepdim=True)
        lost = ~((largest[:, 0] > 0) & largest[:, 0].isfinite())
        if lost.any():
            raise FmriModelsError(
                f"Row {first + int(rows[lost.to(rows.device)][0])} of the {what} is all zero, NaN or infinite, so it "
                "has no direction; leave it out."
            )
        scaled = scaled.clone()
        scaled[rows] = (exact / largest).to(scaled)
        norms[rows] = _norms(scaled[rows])
    return (scaled / norms[:, None] if divide else scaled), norms


def _chunks(gallery: Embeddings, chunk_size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Number of the first row, and rows, of each chunk."""
    for start in range(0, len(gallery), chunk_size):
        yield start, _tensor(gallery[start : start + chunk_size])
        _release_pages(gallery)


def _tensor(values: Embeddings) -> torch.Tensor:
    """Rows as a tensor, copied out of a memory map; on the CPU where a device has no float64."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(as_numbers(np.array(values, subok=True), "Embeddings"))
    return values.detach() if values.is_cuda else values.detach().cpu()


def _release_pages(gallery: Embeddings) -> None:
    """Gives back the pages of a read-only memory map that were read, which otherwise count as this process' memory."""
    mapped = getattr(gallery, "_mmap", None) if isinstance(gallery, np.memmap) and gallery.mode == "r" else None
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _words(chunk: torch.Tensor) -> np.ndarray:
    """Rows as (n, words) unsigned 64-bit numbers; the end is filled up with zeros."""
    content = chunk.cpu().contiguous().view(torch.uint8).numpy()
    missing = -content.shape[1] % 8
    padded = np.pad(content, ((0, 0), (0, missing))) if missing else content
    return padded.view(np.uint64)


def _sums(words: np.ndarray) -> np.ndarray:
    """(n,) random sums of rows of words, which are equal where the rows are."""
    # Odd weights, so that no bit of a word is lost.
    weights = np.random.default_rng(0).integers(0, 2**64, words.shape[1], dtype=np.uint64) | np.uint64(1)
    return np.einsum("ij,j->i", words, weights)


def _flat(values: Embeddings, what: str) -> Embeddings:
    if isinstance(values, np.ndarray) and values.dtype.kind not in "fiu" and not is_bfloat16(values.dtype):
        raise FmriModelsError(f"The {what} holds {values.dtype}; expected numbers of shape (rows, ...).")
    if values.ndim < 2 or 0 in values.shape[1:]:
        raise FmriModelsError(f"The {what} has the shape {tuple(values.shape)}; expected (rows, ...).")
    return values.reshape(len(values), math.prod(values.shape[1:]))


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps matrix products from being rounded to TF32 or bfloat16, which the error bound does not cover."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
