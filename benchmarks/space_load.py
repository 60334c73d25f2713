"""How the page holds up: many users at once on this machine, each asking for one picture after the other.

    python benchmarks/space_load.py                        # twenty users, two minutes

It serves the package's examples in a process of its own, calls the page's route as a browser does, and says how many
pictures were drawn, how long users waited for theirs, what failed, and how the server's memory grew.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from gradio_client import Client

SERVE = """
from fmri_models.space.page import build, choose_shelf, serving
page = build(choose_shelf())
page.launch(**serving(page))
"""
DATA, METHOD, SUBJECT = "examples of the package", "mindeye-scenes", "subj01"
# Those of the page as it opens.
SETTINGS = (8, 3.0, 0.8, 4, 0)
# What was asked for is drawn to its end, so that the last users are waited for.
PATIENCE = 600
NUM_PICTURES = 24


class User(threading.Thread):
    """One who asks for pictures until the time is up.

    Args:
        number: Which one, for the choice of pictures.
        address: Of the page.
        names: Ids of the pictures.
        end: When nothing is asked for any more, on the monotonic clock.
    """

    def __init__(self, number: int, address: str, names: list[str], end: float) -> None:
        super().__init__(daemon=True)
        self._draw, self._address, self._names, self._end = random.Random(number), address, names, end
        self.waits: list[float] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Asks for one picture after the other."""
        client = Client(self._address, verbose=False, download_files=False)
        while time.monotonic() < self._end:
            started, name = time.monotonic(), self._draw.choice(self._names)
            try:
                client.predict(
                    DATA, METHOD, SUBJECT, name, self._draw.randrange(1000), *SETTINGS, api_name="/reconstruct"
                )
            except Exception as error:
                self.errors.append(str(error))
                continue
            self.waits.append(time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long new pictures are asked for")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/space_load.json"))
    arguments = parser.parse_args()
    found = measured(arguments.users, arguments.minutes * 60)
    print(table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if found["errors"]:
        sys.exit(1)


def measured(num_users: int, seconds: float) -> dict[str, Any]:
    """What users saw, and the server's memory minute by minute."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
        server = subprocess.Popen(
            [sys.executable, "-u", "-c", SERVE],
            cwd=empty,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            return _of_server(server, num_users, seconds)
        finally:
            server.terminate()
            server.wait()


def _of_server(server: subprocess.Popen, num_users: int, seconds: float) -> dict[str, Any]:
    assert server.stdout is not None
    address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
    names = _picture_names()
    process = psutil.Process(server.pid)
    started = time.monotonic()
    users = [User(number, address, names, started + seconds) for number in range(num_users)]
    for user in users:
        user.start()
    memory = []
    while any(user.is_alive() for user in users) and time.monotonic() < started + seconds + PATIENCE:
        memory.append((time.monotonic() - started, process.memory_info().rss / 2**20))
        time.sleep(1)
    waits = [wait for user in users for wait in user.waits]
    errors = [error for user in users for error in user.errors] + [
        "a user was never answered" for user in users if user.is_alive()
    ]
    halves = [[rss for at, rss in memory if low <= at < low + seconds / 2] for low in (0, seconds / 2)]
    # The largest of each half: the first pictures of all need memory that is kept.
    first, second = (max(half) for half in halves)
    return {
        "users": num_users,
        "seconds": seconds,
        "pictures": len(waits),
        "errors": errors,
        "median_wait_s": median(waits),
        "longest_wait_s": max(waits),
        "first_half_mib": first,
        "second_half_mib": second,
        "growth": second / first - 1,
    }


def _picture_names() -> list[str]:
    from fmri_models import load_example

    _, trials = load_example(METHOD)
    return sorted(set(trials.stimulus_ids.tolist()))[:NUM_PICTURES]


def table(found: dict[str, Any]) -> str:
    """The results for people."""
    return "\n".join(
        [
            f"{found['users']} users for {found['seconds']:.0f} s: {found['pictures']} pictures, "
            f"{len(found['errors'])} errors{''.join(f'{chr(10)}  {error}' for error in found['errors'][:5])}",
            f"waited for a picture: {found['median_wait_s']:.1f} s (median), {found['longest_wait_s']:.1f} s (longest)",
            f"resident memory, largest: {found['first_half_mib']:.0f} MiB in the first half, "
            f"{found['second_half_mib']:.0f} MiB in the second ({100 * found['growth']:+.1f} %)",
        ]
    )


if __name__ == "__main__":
    main()
