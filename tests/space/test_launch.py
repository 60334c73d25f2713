"""How the page starts, listens and ends."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmri_models import FmriModelsError, FmriToImagePipeline, TrialTable
from fmri_models.process_end import Terminated
from fmri_models.space import page as page_module
from fmri_models.space.decoder import Decoder
from fmri_models.space.page import launch
from fmri_models.space.shelf import Exhibit, Shelf, choose_shelf
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two methods' names, and of two subjects, and their table."""
    folder = tmp_path_factory.mktemp("launch")
    data = write_small_table(folder / "data")
    for subject in ("subj07", "subj02"):
        train(
            load_recipe(
                "linear", [f"data={data}", f"out={folder / subject}", "generator=pixels", f"subjects=[{subject}]"]
            )
        )
    return folder


@pytest.fixture
def shelf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    decoder = Decoder(FmriToImagePipeline.from_pretrained(folder / "subj07"), TrialTable.open(folder / "data"))
    shelf = Shelf([Exhibit("small", "linear", lambda: decoder)])
    monkeypatch.setattr(page_module, "choose_shelf", lambda *given: shelf)
    return shelf


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_a_port_that_is_taken_is_a_sentence_before_anything_is_loaded(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "choose_shelf", lambda *given: pytest.fail("it was loaded"))
    with pytest.raises(FmriModelsError, match=f"can't listen on the port {taken}: another program does.*--port"):
        launch(port=taken)


def test_a_port_that_is_taken_meanwhile_is_a_sentence(
    taken: int, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "_check_port", lambda port: None)
    with pytest.raises(FmriModelsError, match=f"can't listen on the port {taken}"):
        launch(port=taken)


def test_a_folder_that_takes_no_pictures_is_a_sentence_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `/tmp/gradio` is another user's."""
    monkeypatch.setattr(page_module, "choose_shelf", lambda *given: pytest.fail("it was loaded"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "gradio"))
    with pytest.raises(FmriModelsError, match="can't be written into .*gradio .*GRADIO_TEMP_DIR"):
        launch()


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Terminated(15)])
def test_signals_end_it_and_it_says_its_address_alone(
    shelf: Shelf, signal: KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl+C is how it is meant to end; another signal is an end that the command tells of."""

    def interrupted(seconds: float) -> None:
        raise signal

    class Clock:
        sleep = staticmethod(interrupted)

    monkeypatch.setattr(page_module, "time", Clock)
    capfd.readouterr()
    port = free_port()
    if isinstance(signal, Terminated):
        with pytest.raises(Terminated):
            launch(port=port)
    else:
        launch(port=port)
    assert capfd.readouterr().out == f"the page: http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port))


def test_several_models_share_a_table_that_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    open_table = TrialTable.open
    monkeypatch.setattr(TrialTable, "open", lambda path: opened.append(path) or open_table(path))
    # Of different subjects; a comma too many names nothing.
    shelf = choose_shelf(f"{folder / 'subj07'},{folder / 'subj02'},", str(folder / "data"))
    (data,) = shelf.data_sets
    assert shelf.methods(data) == ["linear", "linear (2)"]
    first, second = (shelf.decoder(data, method) for method in shelf.methods(data))
    assert (first.subjects, second.subjects) == (["subj07"], ["subj02"])
    assert first.table is second.table
    assert len(opened) == 1
    with pytest.raises(FmriModelsError, match="names no pipeline"):
        choose_shelf(" , ", str(folder / "data"))


def test_a_table_that_was_learned_from_wholly_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    data = folder / "data"
    model = tmp_path / "all"
    options = [f"data={data}", f"out={model}", "generator=pixels", "subjects=[subj07]"]
    train(load_recipe("linear", [*options, "stages.0.train_on=[train,test]"]))
    with pytest.raises(FmriModelsError, match=r"^The model has learned from all test trials of subj07 in .*a split"):
        choose_shelf(str(model), str(data))
    with pytest.raises(FmriModelsError, match=r"^The pipeline .*all can't be shown: The model has learned from all"):
        choose_shelf(f"{folder / 'subj02'},{model}", str(data))


def test_a_report_that_is_cut_short_is_named_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    exhibit = Exhibit("small", "linear", lambda: pytest.fail("it was loaded"), folder / "subj07")
    assert exhibit.report() is None
    assert not caplog.records
    (folder / "subj07" / "report.json").write_text('{"schema": 1, "resu')
    assert exhibit.report() is None
    assert "report.json is not shown: " in caplog.text
