"""Visitors who send what no browser would, and tables that lack what a page would like to show."""

import asyncio
import http.client
import importlib.util
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from fmri_models import FmriModelsError, FmriToImagePipeline, TrialTable, space
from fmri_models.data import TrialTableWriter
from fmri_models.space.bounded_requests import BoundedRequests
from fmri_models.space.decoder import Decoder
from fmri_models.space.limits import MOST_REQUEST_BYTES, MOST_SESSIONS, checked_gain, checked_seed, visitors_settings
from fmri_models.space.open_fields import Dropdown, Number, Slider
from fmri_models.space.page import build, serving
from fmri_models.space.picture_grid import grid_html
from fmri_models.space.sentences import in_sentences
from fmri_models.space.shelf import Exhibit, Shelf, choose_shelf
from fmri_models.space.tabs.compare import report_texts
from fmri_models.space.voxel_map import voxel_map, voxel_values
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

MARKUP = "<img src=x onerror=alert(1)>"
DATA = "hostile <b>"
NAMES = [f"picture{index:02d}" for index in range(24)]
TESTED = NAMES[-4:]


def write_table(folder: Path, lacking: int) -> Path:
    """Markup in every text, and so many test stimuli without a picture."""
    rng = np.random.default_rng(0)
    pictures: list[np.ndarray | None] = [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in NAMES]
    pictures[len(pictures) - lacking :] = [None] * lacking
    with TrialTableWriter(
        folder, name=DATA, simulated=False, description=MARKUP, license="CC0", source=MARKUP
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [MARKUP], "category": MARKUP, "factors": None}
            for name, picture in zip(NAMES, pictures, strict=True)
        )
        writer.add_voxels("subj01", 12, roi=[MARKUP] * 6 + ["V1"] * 6)
        first = 0
        for part, ids in (("train", NAMES[:-4]), ("test", TESTED)):
            numbers = np.arange(first, first + len(ids), dtype=np.int32)
            writer.add_trials(
                "subj01",
                part,
                stimulus_ids=ids,
                sessions=np.zeros_like(numbers),
                runs=np.zeros_like(numbers),
                trials=numbers,
                repetitions=np.zeros_like(numbers),
                fmri=rng.normal(size=(len(ids), 12)).astype(np.float32),
            )
            first += len(ids)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    return TrialTable.open(write_table(tmp_path_factory.mktemp("hostile") / "data", lacking=1))


@pytest.fixture(scope="module")
def decoder(table: TrialTable, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = tmp_path_factory.mktemp("hostile")
    # Nothing learns from a table that lacks pictures.
    data = write_table(folder / "data", lacking=0)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels"]))
    return Decoder(FmriToImagePipeline.from_pretrained(folder / "model"), table)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """Of another table, whose choices are none of those that the page begins with."""
    folder = tmp_path_factory.mktemp("other")
    data = write_small_table(folder / "data", subjects=("subj07",))
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels"]))
    return Decoder(FmriToImagePipeline.from_pretrained(folder / "model"), TrialTable.open(data))


@pytest.fixture(scope="module")
def address(decoder: Decoder, other: Decoder) -> Iterator[str]:
    shelf = Shelf([Exhibit(DATA, "first", lambda: decoder), Exhibit("small", "second", lambda: other)])
    page = build(shelf)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving(page))
    yield address
    page.close()


def post(address: str, values: Any) -> tuple[int, str]:
    body = json.dumps(values).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def told(address: str, name: str, values: list[Any]) -> str:
    """What a program is told that calls a function of the page."""
    status, text = post(f"{address}gradio_api/call/{name}", {"data": values})
    assert status == 200, text
    with urllib.request.urlopen(
        f"{address}gradio_api/call/{name}/{json.loads(text)['event_id']}", timeout=60
    ) as answer:
        return answer.read().decode()


SETTINGS = (1, 0, 0, 1, 0)


def test_a_program_may_name_any_data_set(address: str, other: Decoder) -> None:
    """Gradio would know those choices alone that the page began with."""
    names = other.stimulus_ids("subj07")
    assert "Decoded from" in told(address, "reconstruct", ["small", "second", "subj07", names[1], 0, *SETTINGS])


@pytest.mark.parametrize("wrong", [None, 5, ["x"], {"a": 1}, MARKUP, "../../etc/passwd", "x" * 50_000, True])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_names_that_there_are_not_are_sentences(address: str, place: int, wrong: Any) -> None:
    values = [DATA, "first", "subj01", TESTED[0], 0, *SETTINGS]
    values[place] = wrong
    found = told(address, "reconstruct", values)
    assert "event: error" in found
    assert "There is no " in found or "has no test trial" in found
    assert "<img" not in found
    assert len(found) < 2000


@pytest.mark.parametrize("wrong", [-1, "x", [1], 1e30, {"a": 1}, False])
@pytest.mark.parametrize(("name", "first"), [("reconstruct", 4), ("change_region", 5)])
def test_numbers_that_are_none_are_sentences(address: str, name: str, first: int, wrong: Any) -> None:
    chosen = [DATA, "first", "subj01", TESTED[0]]
    rest = [wrong, *SETTINGS] if name == "reconstruct" else ["V1", wrong]
    found = told(address, name, [*chosen, *rest])
    assert "event: error" in found
    assert "expected a" in found


def test_emptied_fields_are_the_pipelines_settings(address: str) -> None:
    assert "Decoded from" in told(address, "reconstruct", [DATA, "first", "subj01", TESTED[0], *[None] * 6])


@pytest.mark.parametrize("name", ["retrieve", "contributions", "compare"])
def test_an_unknown_subject_is_a_sentence(address: str, name: str) -> None:
    chosen = [DATA, "nobody", TESTED[0]] if name == "compare" else [DATA, "first", "nobody", TESTED[0]]
    assert "test trial of stimulus" in told(address, name, chosen)


def test_no_call_goes_past_the_queue(address: str) -> None:
    values = [DATA, "first", "subj01", TESTED[0], 0, *SETTINGS]
    status, text = post(f"{address}gradio_api/run/reconstruct", {"data": values})
    assert status == 404
    assert "join the queue" in text


def test_nobody_is_told_what_others_did(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}monitoring/summary", timeout=60)


def test_routes_of_components_that_the_page_has_not_are_closed(address: str) -> None:
    for path in ("gradio_api/process_recording", "gradio_api/deep_link?session_hash=x", "gradio_api/deep_link/"):
        assert post(f"{address}{path}", {})[0] == 404


def test_a_request_is_bounded_before_it_is_read(address: str) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/call/reconstruct")
    connection.putheader("Content-Length", str(MOST_REQUEST_BYTES + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, b"send less" in answer.read()) == (413, True)
    connection.close()


def test_uploads_of_all_visitors_are_bounded_until_they_are_deleted() -> None:
    sent: list[dict[str, Any]] = []
    read: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        read.append(len((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    def statuses(bounded: BoundedRequests, sizes: list[int], path: str = "/gradio_api/upload") -> list[int]:
        async def all_of_them() -> None:
            for size in sizes:

                async def receive(size: int = size) -> dict[str, Any]:
                    return {"type": "http.request", "body": b"x" * size}

                await bounded({"type": "http", "path": path, "headers": []}, receive, send)

        sent.clear()
        asyncio.run(all_of_them())
        return [message["status"] for message in sent if message["type"] == "http.response.start"]

    bounded = BoundedRequests(app, most_bytes=100, most_kept_bytes=150)
    # Without a length in the header, too.
    assert statuses(bounded, [101], "/other") == [413]
    assert read == []
    assert statuses(bounded, [80, 80, 80]) == [200, 200, 503]
    assert statuses(bounded, [80], "/other") == [200]
    assert statuses(BoundedRequests(app, 100, 150, kept_seconds=0), [80, 80, 80]) == [200, 200, 200]


def test_a_stimulus_without_a_picture_is_decoded(decoder: Decoder) -> None:
    found = decoder.reconstruct("subj01", TESTED[-1])
    assert found.shown is None
    assert decoder.reconstruct("subj01", TESTED[0]).shown is not None
    ranking = decoder.rank("subj01", TESTED[0])
    assert ranking.best == []
    assert set(decoder.contributions("subj01", TESTED[-1]).by_region) == {MARKUP, "V1"}


def test_no_text_of_a_table_becomes_markup(address: str) -> None:
    chosen = [DATA, "first", "subj01", TESTED[0]]
    for name, rest in (("reconstruct", [0, *SETTINGS]), ("change_region", [MARKUP, 0]), ("contributions", [])):
        found = told(address, name, [*chosen, *rest])
        assert "event: complete" in found
        assert "<img src=x" not in found
        assert "&lt;img src=x" in found


def test_no_more_visitors_are_remembered_than_memory_holds() -> None:
    """Of each, Gradio keeps the last pictures."""
    assert serving(gr.Blocks())["state_session_capacity"] == MOST_SESSIONS


def test_reports_on_other_trials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = choose_shelf()
    data = shelf.data_sets[0]
    first, second = shelf.methods(data)
    report = shelf.exhibit(data, second).report()
    assert report is not None
    changed = replace(report, data={**report.data, "fingerprint": "another"})
    monkeypatch.setattr(Exhibit, "report", lambda each: changed if each.method == second else report)
    told, _ = report_texts(shelf, data)
    assert f"Measured on other trials, and so not beside these: {second}." in told
    assert f"| metric | chance | {first} |" in told


def test_without_nilearn_a_sentence_says_what_to_install(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = replace(decoder.table.voxels("subj01"), coordinates=np.zeros((12, 3), np.float32))
    values, _ = voxel_values(voxels, {"V1": 0.5})
    for absent in ("nilearn", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name, absent=absent: None if name == absent else name)
            with pytest.raises(FmriModelsError, match=f"{absent} is not installed"):
                voxel_map(voxels, values)


def test_where_there_is_no_picture_the_grid_has_its_text() -> None:
    shown = grid_html(["a", "b"], [None, Image.new("RGB", (4, 4))], [MARKUP, "two"], chosen="a")
    assert "<span>&lt;img" in shown
    assert shown.count("<img") == 1
    assert shown.count('type="radio"') == 2


def test_a_pipeline_without_an_image_generator_says_so(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Decoder(decoder.pipeline, decoder.table)
    monkeypatch.setattr(decoder.pipeline, "image_generator", None)
    assert "no image generator" in bare.rank("subj01", TESTED[0]).summary
    assert bare.contributions("subj01", TESTED[0]).by_region
    with pytest.raises(FmriModelsError, match="no image generator"):
        bare.reconstruct("subj01", TESTED[0])


def test_the_fields_leave_what_comes_to_the_page() -> None:
    for field, name in ((Dropdown(["a"]), "dropdown"), (Slider(0, 1), "slider"), (Number(precision=0), "number")):
        assert field.preprocess("anything") == "anything"
        assert field.get_block_name() == name
    # Gradio writes a stub beside a module that defines a component.
    assert not list(Path(space.__file__).parent.glob("*.pyi"))


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), -0.1, 4.5, "1", True, [1]])
def test_a_gain_that_is_none_is_a_sentence(wrong: Any) -> None:
    with pytest.raises(FmriModelsError, match="expected a number from 0 to 4"):
        checked_gain(wrong)
    assert checked_gain(0) == 0


def test_numbers_are_bounded(decoder: Decoder) -> None:
    own = decoder.pipeline.drawing_settings
    for name, wrong in (("guidance_scale", 20.5), ("num_inference_steps", 51), ("num_candidates", 9)):
        with pytest.raises(FmriModelsError, match="at most"):
            visitors_settings(own, {name: wrong})
    for seed in ("x", [1], {"a": 1}, True):
        with pytest.raises(FmriModelsError, match="expected a whole number"):
            checked_seed(seed)


def test_a_sentence_names_no_folder_of_the_server() -> None:
    @in_sentences
    def fails(text: str) -> None:
        raise FmriModelsError(text)

    for text, shown in (
        ("There is no table /srv/secret/data; choose 1/2.", "There is no table data; choose 1/2."),
        ("See https://huggingface.co/user/name and outputs/demo.",) * 2,
    ):
        with pytest.raises(gr.Error) as caught:
            fails(text)
        assert caught.value.message == shown
        # Whoever calls wrongly does not fill the server's log.
        assert not caught.value.print_exception
