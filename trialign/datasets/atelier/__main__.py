"""Make an atelier catalogue in a folder: ``python -m trialign.datasets.atelier --out data/atelier``."""

import argparse
from pathlib import Path

from trialign.datasets.atelier import make_atelier


def main() -> None:
    """Read the command line, make the catalogue, say what it holds."""
    parser = argparse.ArgumentParser(prog="python -m trialign.datasets.atelier", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--items", type=int, default=480)
    parser.add_argument("--users", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--visual-share", type=float, default=0.5, help="preference on image-only attributes, 0-1")
    parser.add_argument("--mean-length", type=float, default=11.5, help="mean length of a history, 6-25")
    parser.add_argument("--noise", type=float, default=0.1, help="choices that follow only popularity, 0-1")
    parser.add_argument("--image-size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--threads", type=int, default=2, help="processes that draw")
    options = vars(parser.parse_args())
    folder = options.pop("out")
    atelier = make_atelier(**options)
    atelier.save(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    users = atelier.interactions["user_id"].nunique()
    print(
        f"{folder}: {len(atelier.items)} items, {users} users, {len(atelier.interactions)} interactions, {size:.1f} MB"
    )


if __name__ == "__main__":
    main()
