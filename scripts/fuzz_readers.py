"""Reads changed inputs with every reader of the package: success or one of its sentences are the only outcomes.

Whatever else happens (another exception, more than 20 seconds, more than 1 GiB of further memory, the end of the
process, a file in a place that was not given) is a finding: its input is kept under --out with what happened. The same
seed gives the same inputs.

    python scripts/fuzz_readers.py --mutations 20000 --out outputs/fuzzing
    python scripts/fuzz_readers.py --reader table --seed 7 --time 600
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000, metavar="N", help="changed inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", metavar="NAME", help="only this reader (may be repeated)")
    parser.add_argument("--time", type=float, default=1e9, metavar="S", help="begin no more inputs after S seconds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where inputs of findings are kept")
    parser.add_argument("--fixtures", type=Path, metavar="DIR", help="keep the unchanged inputs there for further runs")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="fuzz-readers-"))
    os.environ["FMRI_MODELS_CACHE"] = str(work / "cache")
    os.environ["HF_HOME"] = str(work / "huggingface")
    try:
        return _fuzz(arguments, parser, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fuzz(arguments: argparse.Namespace, parser: argparse.ArgumentParser, work: Path) -> int:
    from tests.fuzzing.fuzzing import fuzz, warm_up
    from tests.fuzzing.readers import READERS, make_fixtures

    known = {reader.name: reader for reader in READERS}
    if unknown := set(arguments.reader or ()) - set(known):
        parser.error(f"unknown reader {min(unknown)}; known: {', '.join(known)}")
    fixtures = arguments.fixtures or work / "fixtures"
    if not fixtures.exists():
        make_fixtures(fixtures)
    for failure in warm_up(fixtures, work):
        print(f"fails on the unchanged input: {failure}")
    started = time.monotonic()
    result = fuzz(
        [known[name] for name in arguments.reader or known], arguments.mutations, arguments.seed, work, arguments.out,
        arguments.time, arguments.workers, fixtures,
    )  # fmt: skip
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    print(f"{counts}; {time.monotonic() - started:.0f} s, the slowest input {result.slowest_s:.1f} s")
    for name, count in Counter(finding.name for finding in result.findings).most_common():
        print(f"{count:6d}  {name}")
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
