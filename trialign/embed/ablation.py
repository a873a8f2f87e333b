"""One catalogue embedded with and without each of its inputs, for measuring what each of them brings."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from trialign.catalogue import Catalogue
from trialign.embed import Embedder, enriched_text

#: The inputs that can be added to the catalogue's own text.
INPUTS = ("captions", "interests", "image")

#: Representations that show what captions, interests and images add, one after the other, and the image alone.
ABLATION = (
    "text",
    "text + captions",
    "text + captions + interests",
    "text + image",
    "text + captions + interests + image",
)


def representation_name(captions: bool, interests: bool, image: bool) -> str:
    """Return the name of a representation by its inputs.

    Examples
    --------
    >>> representation_name(captions=True, interests=False, image=True)
    'text + captions + image'
    """
    added = (captions, interests, image)
    return " + ".join(["text", *(name for name, present in zip(INPUTS, added) if present)])


def representations(
    model: Embedder,
    catalogue: Catalogue,
    captions: Mapping[str, str],
    interests: Mapping[str, Sequence[str]],
    names: Iterable[str] = ABLATION,
    progress: bool = True,
) -> dict[str, Float[np.ndarray, "items _"]]:
    """Embed every item once for each representation.

    Parameters
    ----------
    model
        The embedder. The packaged one, and towers, read each text and each image once for all of them.
    catalogue
        Its text and images.
    captions, interests
        As for `trialign.embed.enriched_text`.
    names
        Representations as `representation_name` names them; equal names count once.
    progress
        Show bars.

    Returns
    -------
    dict
        Name to unit rows. In a catalogue without any image those that differ by the image alone are equal.

    Raises
    ------
    ValueError
        If a name is not made of "text" and the names in `INPUTS`, in their order.
    """
    paths = [catalogue.image_path(row) for row in range(catalogue.n_items)]
    embedded = {}
    for name in dict.fromkeys(names):
        parts = name.split(" + ")
        if name != representation_name(*(part in parts for part in INPUTS)):
            raise ValueError(f"no representation {name!r}: write 'text', then any of {', '.join(INPUTS)}, with ' + '")
        texts = enriched_text(
            catalogue, captions if "captions" in parts else None, interests if "interests" in parts else None
        )
        images = paths if "image" in parts else [None] * len(texts)
        embedded[name] = model.embed(texts, images, progress=progress)
    return embedded
