"""What long work says of itself: bars with names on a terminal, a line now and then in a file or a pipe.

Whoever has turned off the bars of transformers, diffusers, datasets or huggingface_hub, by a call or by their
environment variables, gets none of ours, and of several processes the first one alone says anything.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from tqdm import TqdmExperimentalWarning
from tqdm.std import tqdm as StandardBar

_SWITCHES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
# Into a file: no line sooner than this after the one before it, and none for less of the whole than this, but at least
# one in so many seconds.
_SECONDS_BETWEEN_LINES, _SHARE_BETWEEN_LINES, _MOST_SECONDS_BETWEEN_LINES = 10.0, 0.1, 60.0

# More than a bar takes to appear.
_SECONDS_FOR_A_BAR = 1.0

# Inside of a command: whether bars are shown, and what was turned off for it.
_decided: bool | None = None
# Whether a bar has been drawn on a terminal, whose line may have no end.
_has_drawn = False
_turned_off: list["_Switch"] = []


def bar(
    iterable: Iterable[Any] | None = None,
    name: str = "",
    total: int | None = None,
    *,
    unit: str = "step",
    disable: bool = False,
    **options: Any,
) -> StandardBar:
    """A bar of tqdm that says what it counts; into a file or a pipe it writes a line now and then.

    Args:
        iterable: What is gone through; None for a bar that is told by `update`.
        name: What is done, as the beginning of a sentence: "Drawing row 3 of 13 (ridge)".
        total: How many there are, where `iterable` has no length.
        unit: What is counted, in the singular.
        disable: Show nothing.
        **options: Of tqdm, such as `delay` (seconds before a bar appears, so that short work has none).
    """
    global _has_drawn
    file = options.get("file") or sys.stderr
    options = {"desc": name, "total": total, "unit": unit, "dynamic_ncols": True, **options}
    # Given only where it is so: elsewhere tqdm's own environment variable TQDM_DISABLE says.
    if disable or not are_shown():
        options["disable"] = True
    if _is_terminal(file):
        if not _has_width(file):
            options |= {"ncols": 80, "nrows": 24, "dynamic_ncols": False}
        _has_drawn |= not options.get("disable")
        return _terminal_bar()(iterable, **{**options, "unit": f" {unit}"})
    return _Lines(iterable, **options)


def batches(total: int, size: int, name: str, unit: str = "picture", **options: Any) -> Iterator[range]:
    """Goes through so many things in batches, with a bar that counts the things.

    Args:
        total: How many there are.
        size: Of a batch; the last one may be smaller.
        name: As of [`bar`].
        unit: As of [`bar`].
        **options: Of [`bar`].

    Yields:
        The numbers of each batch.
    """
    with bar(name=name, total=total, unit=unit, **options) as done:
        for start in range(0, total, size):
            rows = range(start, min(start + size, total))
            yield rows
            done.update(len(rows))


@contextmanager
def phase(name: str, delay: float = 1.0, disable: bool = False) -> Iterator[None]:
    """Says what is done in the block, of which nobody knows how far it is.

    Args:
        name: What is done, as the beginning of a sentence: "Comparing pictures".
        delay: Seconds before it is said, so that nothing is said of what takes a moment.
        disable: Say nothing.
    """
    if disable or not are_shown():
        yield
        return
    said: list[StandardBar] = []
    timer = threading.Timer(delay, lambda: said.append(bar(name=name, bar_format="{desc} … {elapsed}")))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # Whoever holds tqdm's lock may be a thread that was interrupted; a phase doesn't wait for it.
        timer.join(_SECONDS_FOR_A_BAR)
        for each in said:
            each.close()


def of_pipeline(
    pipeline: Any, name: str, iterable: Iterable[Any] | None, total: int | None, unit: str = "step"
) -> StandardBar:
    """The bar of a pipeline of diffusers, by what `set_progress_bar_config` was told.

    Args:
        pipeline: The pipeline; a `desc` that it was told replaces the name.
        name: What is drawn.
        iterable: As of [`bar`].
        total: As of [`bar`].
        unit: As of [`bar`].

    Raises:
        ValueError: Neither of the two is given, as in diffusers.
    """
    if iterable is None and total is None:
        raise ValueError("Either `total` or `iterable` has to be defined.")
    options = dict(getattr(pipeline, "_progress_bar_config", {}))
    return bar(
        iterable,
        options.pop("desc", None) or name,
        options.pop("total", total),
        unit=options.pop("unit", unit),
        disable=bool(options.pop("disable", False)),
        **options,
    )


@contextmanager
def named(pipeline: Any, name: str, image_generator: Any = None, **options: Any) -> Iterator[None]:
    """Inside the block, the bars of a pipeline have a name, and its generator's appear inside of them while it draws.

    Args:
        pipeline: A pipeline of diffusers; what the user has told it of its bars holds beside.
        name: What it draws.
        image_generator: Its image generator, another pipeline; None leaves its bars as they are.
        **options: Of tqdm: `leave=False` for bars inside of others, of which files hear only where they take long.
    """
    told = dict(getattr(pipeline, "_progress_bar_config", {}))
    changed = [(pipeline, {"desc": name, **options, **told})]
    if image_generator is not None and not told.get("disable"):
        changed.append((image_generator, {"desc": f"{name}, denoising", "leave": False}))
    before = [(each, getattr(each, "_progress_bar_config", {})) for each, _ in changed]
    for each, config in changed:
        each._progress_bar_config = config
    try:
        yield
    finally:
        for each, config in before:
            each._progress_bar_config = config


def are_shown() -> bool:
    """Whether this process shows bars."""
    return _decided if _decided is not None else is_first_process() and not _are_turned_off()


def is_first_process() -> bool:
    """Whether this is the first of the processes of a training, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(sentence: str) -> None:
    """Says what is done now, where bars are shown; a whole sentence stands as it is."""
    if are_shown():
        write(sentence if sentence.endswith(".") else f"{sentence} …")


def write(line: str) -> None:
    """Writes a line on standard error, above bars that are being drawn."""
    StandardBar.write(line, file=sys.stderr)


def close_bars() -> None:
    """Closes bars that an error left open, which would draw themselves after the last line of ours, and begins a line.

    An interrupt while a bar draws itself, or ends, leaves the line without an end.
    """
    for each in list(getattr(StandardBar, "_instances", ())):
        each.close()
    if _has_drawn and sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns if _has_width(sys.stderr) else 80
        print("\r", " " * (width - 1), "\r", sep="", end="", file=sys.stderr)


@contextmanager
def in_place_of_libraries() -> Iterator[None]:
    """Inside the block, bars of ours alone are shown: those of libraries have no names, or one for each small file.

    Whether ours are is settled at its beginning, by what the user has asked for. Libraries that are imported in the
    block are turned off by [`turn_off_libraries`].
    """
    global _decided
    before, _decided = _decided, are_shown()
    earlier = len(_turned_off)
    turn_off_libraries()
    try:
        yield
    finally:
        # A library that was imported meanwhile has taken what another one was told for what it was told itself.
        meanwhile = [switch for switch in map(_switch, _LIBRARIES) if switch is not None and _decided]
        _decided = before
        for switch in [*_turned_off[earlier:], *meanwhile] if before is None else []:
            switch.turn_on()
        del _turned_off[earlier:]


def turn_off_libraries() -> None:
    """Turns off the bars of the libraries that are loaded, if this is inside of [`in_place_of_libraries`]."""
    if _decided is not None:
        _turned_off.extend(switch for switch in map(_switch, _LIBRARIES) if switch is not None and switch.turn_off())


class _Unlocking(StandardBar):
    """A bar that keeps nothing locked where it can't be drawn: with tqdm's own, other threads would wait for ever."""

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> bool:  # type: ignore[override]
        """Draws the bar again."""
        if self.disable:
            return False
        with nullcontext() if nolock else self.get_lock():
            self.display()
        return True


class _Lines(_Unlocking):
    """A bar for files and pipes, where what has been written stays."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Every step is looked at; whether it is time for a line is decided below.
        # Inside of another one it is silent until it has taken long.
        self._inside = not options.get("leave", True)
        super().__init__(*args, **{**options, "mininterval": 0.1, "miniters": 1})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes a line if it is time for one; called by tqdm wherever a frame would be drawn."""
        now, written = time.time(), getattr(self, "_written", None)
        if written is not None and self.n == self.total:
            # The last line says so.
            return
        if written is not None:
            since, share = now - written[0], abs(self.n - written[1]) / self.total if self.total else 0.0
            is_due = since >= _SECONDS_BETWEEN_LINES and share >= _SHARE_BETWEEN_LINES
            if not is_due and since < _MOST_SECONDS_BETWEEN_LINES:
                return
        if written is not None:
            self._write_line(self._middle(now))
            self._inside = False
        elif not self._inside:
            self._write_line(self._first())
        self._written = (now, self.n)

    def close(self) -> None:
        """Writes the last line, unless the bar never appeared."""
        # One whose first line could not be written was never begun.
        if self.disable or not hasattr(self, "start_t"):
            return
        appeared, took = hasattr(self, "_written") and not self._inside, time.time() - self.start_t
        # Before tqdm's own end, which would draw a frame.
        self.disable = True
        type(self)._decr_instances(self)  # type: ignore[attr-defined]
        if not appeared:
            return
        if self.total is not None or self.n:
            way = "stopped at " if self.total is not None and self.n < self.total else ""
            self._write_line(f"{self._counted(way)} in {_duration(took)}{self._values()}")
        elif took >= _SECONDS_BETWEEN_LINES:
            self._write_line(f"{self.desc_text}: {_duration(took)}")

    def clear(self, nolock: bool = False) -> None:
        """There is no frame to be taken away."""

    def moveto(self, n: int) -> None:
        """Nor a cursor to be moved."""

    @property
    def desc_text(self) -> str:
        """The name, without what tqdm puts behind it."""
        return str(self.desc or "Working").removesuffix(": ")

    def _first(self) -> str:
        return self._counted() if self.total is not None else f"{self.desc_text} …"

    def _middle(self, now: float) -> str:
        took, done = now - self.start_t, self.n - self.initial
        left = f", {_duration(took / done * (self.total - self.n))} left" if self.total and done > 0 else ""
        return f"{self._counted()}, {_duration(took)}{left}{self._values()}"

    def _counted(self, way: str = "") -> str:
        """Diffusers' users look for `n/n`."""
        number = f"{self.n}/{self.total}" if self.total is not None else f"{self.n}"
        return f"{self.desc_text}: {way}{number} {self.unit.strip()}{'' if self.total == 1 else 's'}"

    def _values(self) -> str:
        return f" ({self.postfix})" if self.postfix else ""

    def _write_line(self, line: str) -> None:
        with self.get_lock():
            self.fp.write(f"{line}\n")
            getattr(self.fp, "flush", lambda: None)()


def download_bars(repo_id: str) -> type[StandardBar] | None:
    """The class of the bars of a download within a command; None elsewhere, where huggingface_hub has its own."""
    if _decided is None:
        return None
    base = _terminal_bar() if _is_terminal(sys.stderr) else _Lines

    class DownloadBar(base):  # type: ignore[misc, valid-type]
        """Counts the files, once bytes of one come: what is in the cache is counted too, and is not worth a word.

        How many bytes there are is known while they come.
        """

        _of_files: list["DownloadBar"] = []
        _has_begun = False

        def __init__(self, *args: Any, **options: Any) -> None:
            self._is_of_bytes = options.get("unit") == "B"
            if self._is_of_bytes or not are_shown():
                options["disable"] = True
            super().__init__(*args, **{**options, "desc": f"Fetching {repo_id} from the Hub", "unit": "file"})
            if not self.disable:
                self._of_files.append(self)

        def refresh(self, *args: Any, **options: Any) -> None:
            """Called for the bar of bytes whenever a file has begun to come."""
            if self._is_of_bytes and self.total:
                DownloadBar._has_begun = True
                for bar in self._of_files:
                    bar.refresh()
            super().refresh(*args, **options)

        def display(self, *args: Any, **options: Any) -> Any:
            return super().display(*args, **options) if self._has_begun else None

        def close(self) -> None:
            if not self._has_begun:
                # Of a bar that never appeared no line is to be ended.
                self.leave = False
            super().close()

    return DownloadBar


class _Switch:
    """How the bars of a library are turned off and on again."""

    def __init__(self, module: Any, is_on: str, turn_off: str, turn_on: str, inverted: bool = False) -> None:
        self._module, self._is_on, self._off, self._on, self._inverted = module, is_on, turn_off, turn_on, inverted

    @property
    def is_on(self) -> bool:
        """Whether it shows bars."""
        return bool(getattr(self._module, self._is_on)()) != self._inverted

    def turn_off(self) -> bool:
        """Turns them off; False if they were."""
        was_on = self.is_on
        if was_on:
            with warnings.catch_warnings():
                # huggingface_hub says where its environment variable has settled the matter.
                warnings.simplefilter("ignore")
                getattr(self._module, self._off)()
        return was_on

    def turn_on(self) -> None:
        """Turns them on again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(self._module, self._on)()


# Module ▶ whether bars are on, what turns them off, what turns them on, whether the first says the opposite.
_LIBRARIES = {
    "huggingface_hub.utils": ("are_progress_bars_disabled", "disable_progress_bars", "enable_progress_bars", True),
    "datasets": ("are_progress_bars_disabled", "disable_progress_bars", "enable_progress_bars", True),
    "transformers.utils.logging": (
        "is_progress_bar_enabled", "disable_progress_bar", "enable_progress_bar", False,
    ),
    "diffusers.utils.logging": (
        "is_progress_bar_enabled", "disable_progress_bar", "enable_progress_bar", False,
    ),
}  # fmt: skip


def _switch(module: str) -> _Switch | None:
    """None where the library is not loaded (whole): whoever has not imported it has not told it anything either."""
    found = sys.modules.get(module)
    names = _LIBRARIES[module]
    return _Switch(found, *names) if found is not None and hasattr(found, names[0]) else None


def _are_turned_off() -> bool:
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _SWITCHES):
        return True
    return any(switch is not None and not switch.is_on for switch in map(_switch, _LIBRARIES))


def _is_terminal(file: Any) -> bool:
    """Whether what is written there can be replaced: on a terminal, and in a notebook."""
    return bool(getattr(file, "isatty", lambda: False)()) or "ipykernel" in sys.modules


def _has_width(file: Any) -> bool:
    """Whether a terminal says how wide it is; those of containers and of CI may say 0."""
    try:
        return os.get_terminal_size(file.fileno()).columns > 0
    except (AttributeError, OSError, ValueError):
        return True


def _terminal_bar() -> type[StandardBar]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        from tqdm.auto import tqdm

    if "ipykernel" in sys.modules:
        return tqdm

    class TerminalBar(_Unlocking, tqdm):
        """That of a terminal."""

    return TerminalBar


def _duration(seconds: float) -> str:
    """A duration as people say it: 8 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
