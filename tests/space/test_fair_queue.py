"""Who waits, who has left, and what is refused before it gets to a function of the page."""

import asyncio
import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import pytest

from fmri_models import FmriModelsError
from fmri_models.space import limits
from fmri_models.space.decoder import Decoder
from fmri_models.space.fair_queue import FairQueue
from fmri_models.space.gradio_queue import is_listened_to, num_waiting
from fmri_models.space.limits import Watch
from fmri_models.space.page import Page, build, serving
from fmri_models.space.shelf import Exhibit, Shelf, choose_shelf

EXAMPLES = "examples of the package"
SETTINGS = (1, 3, 0.8, 1, 0)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        return choose_shelf()


@pytest.fixture(scope="module")
def decoder(shelf: Shelf) -> Decoder:
    return shelf.decoder(EXAMPLES, "linear-scenes")


@pytest.fixture(scope="module")
def page(shelf: Shelf) -> Iterator[Page]:
    page = build(shelf)
    page.launch(prevent_thread_lock=True, quiet=True, **serving(page))
    yield page
    page.close(verbose=False)


class Slow:
    """Drawing whose steps wait a little, until they may go, and are counted."""

    def __init__(self) -> None:
        self.go, self.steps, self.pause = threading.Event(), 0, 0.2


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()

    class Waiting(Watch):
        def __call__(self, *args: Any) -> dict[str, Any]:
            slow.go.wait(slow.pause)
            slow.steps += 1
            return super().__call__(*args)

    monkeypatch.setattr("fmri_models.space.decoder.Watch", Waiting)
    yield slow
    slow.go.set()


def post(page: Page, path: str, values: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{page.local_url}gradio_api/{path}", json.dumps(values).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def result(page: Page, name: str, event: str) -> str:
    with urllib.request.urlopen(f"{page.local_url}gradio_api/call/{name}/{event}", timeout=60) as answer:
        return answer.read().decode()


def asked(decoder: Decoder, steps: int = 1) -> list[Any]:
    subject = decoder.subjects[0]
    return [EXAMPLES, "linear-scenes", subject, decoder.stimulus_ids(subject)[0], 0, steps, *SETTINGS[1:]]


def until(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_so():
        time.sleep(0.02)
    return is_so()


@pytest.mark.slow
def test_one_visitor_has_a_few_calls_waiting_and_the_next_gets_a_picture(
    page: Page, decoder: Decoder, slow: Slow
) -> None:
    (number,) = (number for number, each in page.fns.items() if each.api_name == "reconstruct")
    call = {"data": asked(decoder, 2), "fn_index": number}
    # Nothing is done while these come, however slow the machine is.
    slow.pause = 120
    most = limits.MOST_WAITING_EACH
    # One that names no session is one of all those that name none; an empty name is none.
    for path, values in (
        ("queue/join", {**call, "session_hash": "greedy"}),
        ("call/reconstruct", {"data": call["data"]}),
        ("call/reconstruct", {"data": call["data"], "session_hash": ""}),
    ):
        statuses = Counter(post(page, path, values)[0] for _ in range(most + 3))
        # One of all is being drawn.
        assert statuses[200] <= most + 1
        assert statuses[429] >= 2 if path == "queue/join" else statuses[429]
    status, told = post(page, "queue/join", {**call, "session_hash": "greedy"})
    assert (status, told["detail"]) == (
        429,
        f"You have {most} calls waiting here already; wait until one of them is done.",
    )
    assert num_waiting(page, "greedy") == most
    assert num_waiting(page, None) == most
    status, told = post(page, "call/reconstruct", {"data": asked(decoder), "session_hash": "second"})
    assert status == 200
    slow.go.set()
    assert "Decoded from" in result(page, "reconstruct", told["event_id"])
    assert until(lambda: num_waiting(page, None) == 0)


def test_many_calls_at_once_do_not_slip_through() -> None:
    """None of them is in the queue yet when the next one comes."""
    sent: list[dict[str, Any]] = []
    body = json.dumps({"session_hash": "greedy"}).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        parts = [await receive(), await receive()]
        assert b"".join(part["body"] for part in parts) == body
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    async def call(fair: FairQueue) -> None:
        parts = [
            {"type": "http.request", "body": body[:5], "more_body": True},
            {"type": "http.request", "body": body[5:]},
        ]

        async def receive() -> Any:
            return parts.pop(0)

        await fair({"type": "http", "method": "POST", "path": "/gradio_api/queue/join"}, receive, send)

    async def all_of_them(fair: FairQueue) -> None:
        await asyncio.gather(*(call(fair) for _ in range(5)))

    fair = FairQueue(app, lambda session: {"greedy": 1}.get(session or "", 0), most=3)
    for _ in range(2):
        sent.clear()
        asyncio.run(all_of_them(fair))
        assert Counter(each["status"] for each in sent if "status" in each) == {200: 2, 429: 3}


def test_a_drawing_that_nobody_waits_for_any_more_ends(page: Page, decoder: Decoder, slow: Slow) -> None:
    """A visitor leaves in the middle; another one cancels; the next one does not wait for theirs."""
    _, told = post(page, "call/reconstruct", {"data": asked(decoder, 50)})
    address = urllib.parse.urlsplit(page.local_url).netloc
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", f"/gradio_api/call/reconstruct/{told['event_id']}")
    answer = connection.getresponse()
    assert until(lambda: num_waiting(page, None) == 0)
    answer.close()
    connection.close()

    (number,) = (number for number, each in page.fns.items() if each.api_name == "reconstruct")
    call = {"data": asked(decoder, 50), "fn_index": number, "session_hash": "cancels"}
    for _ in range(3):
        _, told = post(page, "queue/join", call)
        assert until(lambda: num_waiting(page, "cancels") == 0)
        post(page, "cancel", {"session_hash": "cancels", "fn_index": number, "event_id": told["event_id"]})

    _, told = post(page, "call/reconstruct", {"data": asked(decoder, 2)})
    assert "Decoded from" in result(page, "reconstruct", told["event_id"])
    # Each of the four had fifty.
    assert slow.steps < 100


def test_outside_of_a_call_somebody_listens() -> None:
    assert is_listened_to()()
    # Names that Gradio's queue has to have, since it has no public ones.
    queue = gr.Blocks()._queue
    assert queue.event_queue_per_concurrency_id == {} and queue.event_ids_to_events == {}


def test_a_drawing_that_raises_frees_the_next(page: Page, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raises(Watch):
        def __call__(self, *args: Any) -> dict[str, Any]:
            raise RuntimeError("/srv/secret")

    with monkeypatch.context() as patch:
        patch.setattr("fmri_models.space.decoder.Watch", Raises)
        _, told = post(page, "call/reconstruct", {"data": asked(decoder)})
        found = result(page, "reconstruct", told["event_id"])
        assert "server's log" in found
        assert "secret" not in found
    _, told = post(page, "call/reconstruct", {"data": asked(decoder)})
    assert "Decoded from" in result(page, "reconstruct", told["event_id"])


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("call/nosuch", {"data": []}),
        ("call/v2/nosuch", {"a": 1}),
        ("run/nosuch", {"data": []}),
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "x"}),
    ],
)
def test_a_function_that_there_is_not_is_a_sentence(page: Page, path: str, values: Any) -> None:
    status, told = post(page, path, values)
    assert status == 404
    assert told["detail"].startswith("This page has no such function")


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "none that was uploaded to this page"),
        # It would be fetched, however long it is.
        ({"path": "https://127.0.0.1:1/x.npy", "meta": {"_type": "gradio.FileData"}}, "none that was uploaded"),
        ({"path": 5, "meta": 3}, "does not fit this function"),
    ],
)
def test_a_file_that_was_not_uploaded_is_a_sentence(page: Page, decoder: Decoder, file: Any, sentence: str) -> None:
    data = [*asked(decoder)[:3], file, None, 0, *SETTINGS, None]
    _, told = post(page, "call/reconstruct_upload", {"data": data})
    found = result(page, "reconstruct_upload", told["event_id"])
    assert sentence in found
    assert "passwd" not in found


def test_too_few_values_are_a_sentence(page: Page) -> None:
    _, told = post(page, "call/reconstruct", {"data": [1, 2]})
    assert "does not fit this function" in result(page, "reconstruct", told["event_id"])


def test_broken_demos_do_not_keep_the_page_from_starting(decoder: Decoder, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Decoder:
        raise FmriModelsError("The brain model has no weights; save it again.")

    page = build(Shelf([Exhibit("half", "first", broken), Exhibit("whole", "second", lambda: decoder)]))
    (data,) = (each for each in page.blocks.values() if getattr(each, "elem_id", None) == "data")
    assert isinstance(data, gr.Dropdown) and data.value == "whole"
    assert "first of half is not shown: The brain model has no weights" in caplog.text
    with pytest.raises(FmriModelsError, match="has no weights"):
        build(Shelf([Exhibit("half", "first", broken)]))
