"""Inject faults and write docs/reliability.md: what was injected how often, and what was lost or done twice.

    python benchmarks/reliability.py                        every campaign, then the page
    python benchmarks/reliability.py --only servers texts   some of them; the page keeps the others' last rows
    python benchmarks/reliability.py --page                 the page alone, from the records

Records lie in benchmarks/results/reliability, one file a campaign. Run with OMP_NUM_THREADS=1.
"""

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trialign.provenance import versions

RECORDS = Path(__file__).with_name("results") / "reliability"
PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"

#: Campaigns (modules of `faults`) in the page's order, with their headings.
CAMPAIGNS = {
    "kills": "Processes that are killed",
    "rivals": "Two runs at once",
    "files": "Disks and files",
    "servers": "Servers that fail",
    "catalogues": "Malformed catalogues",
    "texts": "Untrusted text",
    "security": "Secrets, archives, code",
    "repeats": "The same seed twice",
    "load": "Load",
}

HEADER = (
    "| fault | injected | survived | lost | repeated | worst, s | what one sees |\n|---|---:|---:|---:|---:|---:|---|\n"
)

INTRODUCTION = """# What it keeps when things go wrong

Every line was made by `python benchmarks/reliability.py`, which injects the fault and compares what is left with an
undisturbed run. *Survived*: ended well, or with an error that names the file and the remedy where nothing better is
possible. *Lost*: finished work that was gone or silently wrong. *Repeated*: finished work that was done a second time.
The same campaigns, with fewer repetitions, are part of `make test`.
"""


def run(campaign: str, times: int, seed: int) -> None:
    """Run a campaign and keep its rows as a record."""
    rows = []
    for row in importlib.import_module(f"faults.{campaign}").rows(times, seed):
        print(f"{row.fault}: {row.survived} of {row.injected} survived, {row.lost} lost, {row.repeated} repeated")
        rows.append(asdict(row))
    RECORDS.mkdir(parents=True, exist_ok=True)
    record = {"campaign": campaign, "times": times, "seed": seed, "versions": versions(), "rows": rows}
    (RECORDS / f"{campaign}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def page() -> str:
    """Return the page made of all records."""
    parts = [INTRODUCTION]
    for campaign, heading in CAMPAIGNS.items():
        path = RECORDS / f"{campaign}.json"
        if path.is_file():
            parts.append(f"## {heading}\n\n{table(json.loads(path.read_text('utf-8'))['rows'])}")
    return "\n".join(parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table in Markdown."""
    lines = (
        f"| {row['fault']} | {row['injected']:,} | {row['survived']:,} | {row['lost']} | {row['repeated']} "
        f"| {row['worst_seconds']:.1f} | {row['note']} |\n"
        for row in rows
    )
    return HEADER + "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS), help="campaigns (all)")
    parser.add_argument("--times", type=int, default=50, help="injections of each fault (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    options = parser.parse_args()
    for campaign in [] if options.page else options.only:
        run(campaign, options.times, options.seed)
    PAGE.write_text(page(), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
