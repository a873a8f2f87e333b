"""The truth behind a catalogue that was made by code, where there is one."""

from dataclasses import replace

from trialign.catalogue import Catalogue
from trialign.datasets.atelier import Truth, load_truth


def known_truth(catalogue: Catalogue) -> Truth | None:
    """Return what is really the case in a made catalogue, its items in the catalogue's order.

    Parameters
    ----------
    catalogue
        Any catalogue; only one made by `trialign.datasets.atelier` knows its truth.

    Returns
    -------
    Truth or None
        None for real data, where nobody knows. For checking claims only: nothing that describes, embeds or recommends
        may read it.
    """
    if not (catalogue.root / "truth" / "items.parquet").is_file():
        return None
    truth = load_truth(catalogue.root)
    items = truth.items.set_index("item_id").loc[catalogue.items["item_id"]].reset_index()
    return replace(truth, items=items)
