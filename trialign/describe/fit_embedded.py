"""Fit the embedded describer's heads on draws of their own: ``python -m trialign.describe.fit_embedded``.

The pictures are drawn as the atelier catalogue's are, with other seeds, so no item of the shipped catalogue is among
them. Run it again after a change to how the atelier draws; it rewrites ``embedded_heads.safetensors`` and its JSON.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from trialign.datasets.atelier.attributes import ATTRIBUTES, names
from trialign.datasets.atelier.drawing import draw_items
from trialign.describe.heads import PACKAGED, AttributeHeads, Looks, fit_heads, look
from trialign.models import efficientnet
from trialign.progress import tqdm

#: First of the seeds drawn for fitting; far from the seeds that catalogues are made with.
FIRST_SEED = 710_000
#: Pictures drawn with one seed.
CHUNK = 200


def draw_looks(
    images: int, first_seed: int = FIRST_SEED, *, threads: int = 2, progress: bool = True
) -> tuple[Looks, pd.DataFrame]:
    """Draw pictures and measure them.

    Parameters
    ----------
    images
        How many.
    first_seed
        Seed of the first :data:`CHUNK` pictures; the next ones take the seeds after it.
    threads
        Processes that draw.
    progress
        Show a bar.

    Returns
    -------
    Looks
        What the heads read, one row a picture.
    pandas.DataFrame
        The true attributes, in the same order.
    """
    model = efficientnet()
    measured: list[Looks] = []
    tables: list[pd.DataFrame] = []
    with tqdm(total=images, desc="draw and measure", unit="image", disable=not progress) as bar:
        for step, start in enumerate(range(0, images, CHUNK)):
            drawn, table = draw_items(min(CHUNK, images - start), first_seed + step, threads=threads)
            tables.append(table)
            for first in range(0, len(drawn), 16):
                batch = [as_saved(image) for image in drawn[first : first + 16]]
                measured.append(look(batch, model))
                bar.update(len(batch))
    parts = ([part.pooled for part in measured], [part.features for part in measured])
    return Looks(*map(np.concatenate, parts)), pd.concat(tables, ignore_index=True)


def as_saved(image: Image.Image) -> Image.Image:
    """Return the picture as a catalogue's file holds it, with the losses of JPEG compression."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return Image.open(file).convert("RGB")


def fit(images: int = 1800, *, threads: int = 2, progress: bool = True) -> AttributeHeads:
    """Draw, measure and fit the heads of all attributes that can be seen (see :func:`fit_heads`)."""
    looks, table = draw_looks(images, threads=threads, progress=progress)
    visible = {name: ATTRIBUTES[name].values for name in names("image", "both")}  # noqa: PD011 (not a DataFrame)
    truth = {name: table[name].astype(str).tolist() for name in visible}
    return fit_heads(looks.features, looks.pooled, truth, visible, seed=FIRST_SEED)


def main() -> None:
    """Fit, print the accuracy on held-out pictures, and write the heads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1800, help="pictures to draw (default: 1800)")
    parser.add_argument("--threads", type=int, default=2, help="processes that draw (default: 2)")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="file to write (default: the package's)")
    given = parser.parse_args()
    heads = fit(given.images, threads=given.threads)
    heads.save(given.out)
    for name, accuracy in heads.notes["accuracy"].items():
        print(f"{name:12s} {accuracy:6.1%} on {heads.notes['held_out']} held-out pictures")
    print(f"wrote {given.out} ({given.out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
