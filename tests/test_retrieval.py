"""Exact search: order, ties, chunks, numbers of any size, memory maps, and both directions on models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fmri_models import LinearConfig, LinearModel, MindEyeConfig, MindEyeModel, retrieval
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import retrieval_accuracy
from fmri_models.retrieval import count_duplicates, retrieve

SPACE = {"encoder": "tiny", "layer": "tokens", "shape": [3, 4]}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sorted_cosines(query, gallery):
    """All cosines in float64, by definition, with the smaller index first among equals."""
    cosines = np.stack([F.cosine_similarity(row[None].double(), gallery.double(), dim=1).numpy() for row in query])
    order = np.argsort(-cosines, axis=1, kind="stable")
    return torch.from_numpy(np.take_along_axis(cosines, order, 1)), torch.from_numpy(order)


@pytest.mark.parametrize("chunk_size", [1, 7, 50, None])
@pytest.mark.parametrize("top_k", [1, 4, 50])
def test_search_is_exact_in_any_chunks(chunk_size, top_k):
    query, gallery = draw(5, 8), draw(50, 8, seed=1)
    found = retrieve(query, gallery, top_k, chunk_size)
    similarities, indices = sorted_cosines(query, gallery)
    torch.testing.assert_close(found.similarities, similarities[:, :top_k], atol=1e-14, rtol=0)
    assert torch.equal(found.indices, indices[:, :top_k])
    assert found.similarities.dtype == torch.float64


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(1, 70), st.integers(0, 10**6))
def test_equal_rows_come_in_their_order_whatever_the_chunks(rows, size, queries, chunk_size, seed):
    # Small whole numbers make many equal rows, and cosines that are equal as numbers, not only as vectors.
    generator = np.random.default_rng(seed)
    gallery = generator.integers(1, 3, (rows, size)).astype(np.float32)
    query = generator.integers(1, 3, (queries, size)).astype(np.float32)
    found = retrieve(query, gallery, rows, chunk_size)
    assert torch.equal(found.indices.sort(dim=1).values, torch.arange(rows).expand(queries, -1))
    whole = retrieve(query, gallery, rows)
    assert torch.equal(found.indices, whole.indices)
    assert torch.equal(found.similarities, whole.similarities)
    assert (found.similarities.diff(dim=1) <= 0).all()
    _, copy_of = np.unique(gallery, axis=0, return_inverse=True)
    for similarities, indices in zip(found.similarities, found.indices, strict=True):
        by_row = similarities[indices.argsort()].numpy()
        assert all(len(np.unique(by_row[copy_of == each])) == 1 for each in copy_of)
        tied = similarities.diff() == 0
        assert (indices.diff()[tied] > 0).all()


def test_what_float32_cannot_tell_apart_is_ordered_in_float64():
    query = torch.zeros(1, 64, dtype=torch.float64)
    query[0, 0] = 1
    gallery = torch.zeros(500, 64, dtype=torch.float64)
    gallery[:, 0] = 1
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    # Cosines 1 - (5e-6 k)² / 2, whose differences near 1 are far below float32's.
    gallery[order, 1] = 5e-6 * torch.arange(500, dtype=torch.float64)
    assert len((gallery / gallery.norm(dim=1, keepdim=True))[:, 0].float().unique()) < 60
    for chunk_size in (13, None):
        assert torch.equal(retrieve(query, gallery, 100, chunk_size).indices[0], order[:100])


@pytest.mark.parametrize("top_k", [1, 5, 300])
@pytest.mark.parametrize("kind", ["equal", "few", "nearly equal", "mixed"])
def test_collapsed_galleries_are_searched_in_pieces_and_as_exactly(kind, top_k, monkeypatch):
    generator = np.random.default_rng(0)
    query = generator.normal(size=(40, 16)).astype(np.float32)
    gallery = {
        "equal": np.ones((900, 16), np.float32),
        "few": generator.normal(size=(3, 16)).astype(np.float32)[generator.integers(0, 3, 900)],
        "nearly equal": 1 + 1e-6 * generator.normal(size=(900, 16)).astype(np.float32),
        "mixed": 1 + np.float32(1e-7) * generator.integers(0, 2, (900, 16)).astype(np.float32),
    }[kind]
    whole = retrieve(query, gallery, top_k)
    scored, cosines = [], retrieval._cosines
    monkeypatch.setattr(retrieval, "_PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(retrieval, "_cosines", lambda *args: scored.append(len(args[2])) or cosines(*args))
    for chunk_size in (None, 250):
        found = retrieve(query, gallery, top_k, chunk_size)
        assert torch.equal(found.indices, whole.indices) and torch.equal(found.similarities, whole.similarities)
    # Of whole queries, one more than fits at most.
    assert max(scored) <= 1000 + len(gallery)
    if top_k == 1:
        assert sum(scored) < 2 * 40 * 900 / 10


def test_different_rows_of_one_sum_are_not_taken_for_copies(monkeypatch):
    gallery = np.repeat(np.arange(12, dtype=np.float32).reshape(3, 4), [4, 3, 1], axis=0)[[0, 4, 1, 5, 2, 6, 3, 7]]
    words = retrieval._words(torch.from_numpy(gallery))
    expected = [True, True, True, True, False, False, False, True]
    assert retrieval._first_copies(words, 2).tolist() == expected
    monkeypatch.setattr(retrieval, "_sums", lambda words: np.zeros(len(words), np.uint64))
    kept = retrieval._first_copies(words, 2)
    assert not (~kept & np.array(expected)).any() and kept[1] and kept[7]


def test_chunks_of_short_vectors_leave_room_for_their_cosines(monkeypatch):
    sizes, estimates = [], retrieval._estimates
    monkeypatch.setattr(retrieval, "_ESTIMATES_AT_ONCE", 5000)
    monkeypatch.setattr(
        retrieval, "_estimates", lambda *args: sizes.append(args[0].shape[0] * len(args[1])) or estimates(*args)
    )
    query, gallery = draw(100, 2), draw(400, 2, seed=1)
    assert torch.equal(retrieve(query, gallery, 3).indices, sorted_cosines(query, gallery)[1][:, :3])
    assert max(sizes) <= 5000


def test_wide_embeddings_are_exact():
    query, gallery = draw(4, 5000), draw(60, 5000, seed=1)
    gallery[17] = gallery[4]
    found = retrieve(query, gallery, 60, 13)
    similarities, indices = sorted_cosines(query, gallery)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.similarities, similarities, atol=1e-14, rtol=0)


def test_values_of_any_size_have_a_direction():
    query, gallery = draw(4, 6).double(), draw(40, 6, seed=1).double()
    expected = retrieve(query, gallery, 5)
    scales = 10.0 ** torch.linspace(-300, 300, 40, dtype=torch.float64)[:, None]
    for found in (retrieve(query, gallery * scales, 5, 9), retrieve(query * 1e-200, gallery * 1e200, 5)):
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.similarities, expected.similarities, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_memory_maps_of_any_type_and_shape(tmp_path, dtype):
    values = (10 * draw(60, 3, 4, seed=2).numpy()).astype(dtype)
    np.save(tmp_path / "gallery.npy", values)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    query = draw(5, 12)
    found = retrieve(query, mapped, 3, chunk_size=7)
    again = retrieve(query, torch.from_numpy(values.reshape(60, -1)), 3)
    assert torch.equal(found.indices, again.indices)
    assert torch.equal(found.similarities, again.similarities)
    assert np.array_equal(mapped, values)


def test_bfloat16_and_a_lowered_precision_of_products(monkeypatch):
    query, gallery = draw(6, 300), draw(400, 300, seed=4)
    expected = retrieve(query.bfloat16(), gallery.bfloat16(), 5)
    similarities, indices = sorted_cosines(query.bfloat16(), gallery.bfloat16())
    assert torch.equal(expected.indices, indices[:, :5])
    torch.testing.assert_close(expected.similarities, similarities[:, :5], atol=1e-14, rtol=0)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(retrieve(query, gallery, 5).indices, sorted_cosines(query, gallery)[1][:, :5])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_many_queries_go_in_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "_QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(retrieval, "_CACHED_VALUES", 20)
    monkeypatch.setattr(retrieval, "_VALUES_A_PIECE", 20)
    query, gallery = draw(10, 8), draw(50, 8, seed=1)
    assert torch.equal(retrieve(query, gallery, 6).indices, sorted_cosines(query, gallery)[1][:, :6])
    assert retrieve(query[:0], gallery, 6).indices.shape == (0, 6)


def test_duplicates_are_counted_and_take_places():
    gallery = draw(30, 5).half().numpy()
    assert count_duplicates(gallery) == 0
    gallery[[7, 20, 29]] = gallery[3]
    gallery[11] = gallery[0]
    assert count_duplicates(gallery) == 4
    assert count_duplicates(torch.from_numpy(gallery).bfloat16()) == 4
    found = retrieve(gallery[3:4], gallery, 4, chunk_size=6)
    assert found.indices.tolist() == [[3, 7, 20, 29]]
    torch.testing.assert_close(found.similarities, torch.ones(1, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("query", "gallery", "match"),
    [
        (draw(2, 4), draw(9, 5), "query has 4 values and a gallery row 5; embed both"),
        (draw(2, 4), draw(2, 4), "top_k is 3, but the gallery has 2 rows"),
        (draw(2, 4), draw(0, 4), "gallery has 0 rows"),
        (draw(2, 4), torch.cat([draw(7, 4), torch.zeros(1, 4)]), "Row 7 of the gallery is all zero, NaN"),
        (draw(2, 4), torch.cat([draw(5, 4), draw(1, 4) * float("nan"), draw(3, 4)]), "Row 5 of the gallery"),
        (draw(2, 4), torch.cat([draw(5, 4), draw(1, 4) * float("inf")]), "Row 5 of the gallery .* no direction"),
        (torch.zeros(1, 4), draw(9, 4), "Row 0 of the query"),
        (draw(4), draw(9, 4), r"query has the shape \(4,\)"),
        (draw(2, 4), np.array([["a"] * 4] * 9), "gallery holds <U1"),
    ],
)
def test_bad_input_is_a_sentence(query, gallery, match):
    with pytest.raises(FmriModelsError, match=match):
        retrieve(query, gallery, 3, chunk_size=4)


def models():
    shared = {"subject_names": ["subj01", "subj02"], "num_voxels": [20, 15], "image_embedding_space": SPACE}
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "projector_size": 8, "prior_num_attention_heads": 2}
    mindeye = MindEyeModel(MindEyeConfig(**shared, **small, prior_attention_head_dim=4))
    linear = LinearModel(LinearConfig(**shared))
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    return {"mindeye": mindeye.eval(), "linear": linear.eval()}


@pytest.mark.parametrize("method", ["mindeye", "linear"])
def test_models_retrieve_in_both_directions(method):
    model = models()[method]
    fmri, subjects = draw(6, 20), ["subj01"] * 3 + ["subj02"] * 3
    fmri[3:, 15:] = 0
    embeds = model.retrieval_embeds(fmri, subjects)
    torch.testing.assert_close(embeds, model.decode(fmri, subjects).retrieval_embeds)
    assert embeds.shape == (6, 3, 4)
    # Picture i belongs to response 5 - i.
    gallery = embeds.flip(0) + 0.01 * draw(6, 3, 4, seed=1)
    by_brain = model.retrieve(fmri, gallery, subjects, top_k=2)
    assert by_brain.indices[:, 0].tolist() == [5, 4, 3, 2, 1, 0]
    by_image = model.retrieve(fmri, gallery.half().numpy(), subjects, top_k=1, query="image")
    assert by_image.indices.shape == (6, 1)
    assert by_image.indices[:, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_a_models_ranks_are_those_of_the_accuracies():
    model = models()["mindeye"]
    fmri = draw(12, 20)
    gallery = model.retrieval_embeds(fmri, "subj01") + 0.3 * draw(12, 3, 4, seed=2)
    embeds = model.retrieval_embeds(fmri, "subj01")
    for query in ("brain", "image"):
        first = model.retrieve(fmri, gallery, "subj01", top_k=1, query=query).indices[:, 0]
        share = (first == torch.arange(12)).double().mean().item()
        assert share == pytest.approx(retrieval_accuracy(embeds, gallery, query=query))
        assert 0 < share < 1


def test_mindeye_retrieves_without_its_prior():
    model = models()["mindeye"]
    before = model.retrieve(draw(3, 20), draw(9, 12), "subj01", top_k=1)
    model.prior = None
    after = model.retrieve(draw(3, 20), draw(9, 12), "subj01", top_k=1)
    assert torch.equal(before.indices, after.indices)


def test_a_model_says_why_it_cannot_retrieve():
    model = models()["mindeye"]
    with pytest.raises(FmriModelsError, match=r"9 embeddings of 5 values; this model's have 12 \(tiny, tokens\)"):
        model.retrieve(draw(3, 20), draw(9, 5), "subj01")
    with pytest.raises(FmriModelsError, match="'brain' or 'image'"):
        model.retrieve(draw(3, 20), draw(9, 12), "subj01", query="both")
    latents = {"encoder": "tiny", "layer": "latent", "shape": [2, 4, 4]}
    only_latents = LinearModel(LinearConfig(subject_names=["subj01"], num_voxels=[20], latent_space=latents))
    with pytest.raises(FmriModelsError, match="no embeddings that can be compared with pictures"):
        only_latents.retrieve(draw(3, 20), draw(9, 12))
