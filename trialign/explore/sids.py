"""Explore semantic IDs: walk the prefix tree, look an item up, see its neighbours, compare it, change a code."""

from collections.abc import Mapping, Sequence
from itertools import islice
from math import ceil, sqrt

import ipywidgets as widgets
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from trialign.catalogue import Catalogue
from trialign.explore.explorer import Explorer, heading_html, status_html
from trialign.explore.item_details import ItemDetails
from trialign.explore.item_grid import ItemGrid, Tile
from trialign.explore.neighbours import Spaces
from trialign.explore.pager import Pager
from trialign.explore.prefixes import Child, PrefixTree
from trialign.explore.thumbnails import Thumbnails, image_data_url
from trialign.explore.titles import TitleBox
from trialign.sids import SemanticIds
from trialign.sids.quantizer import Quantizer
from trialign.sids.semantic_ids import token

#: Most images along a side of the mosaic of a prefix, and its side in pixels.
_MOSAIC, _SIDE = 3, 96


class SidExplorer(Explorer):
    """What `explore_sids` returns; its widgets can be set by code as well.

    Attributes
    ----------
    prefix : list of int
        The codes walked so far.
    crumbs : widgets.HBox
        A button for each step on the way, to go back.
    children_grid, items_grid : ItemGrid
        The prefixes one code longer, and the items of this prefix.
    lookup : TitleBox
        Finds an item and walks to it.
    details : ItemDetails
        Of the item chosen last.
    """

    def __init__(
        self,
        tree: PrefixTree,
        catalogue: Catalogue,
        spaces: Spaces | None,
        limit: int,
    ) -> None:
        self._tree, self._catalogue, self._limit = tree, catalogue, limit
        self._thumbnails = Thumbnails(catalogue)
        self.prefix: list[int] = []
        self.crumbs = widgets.HBox([self._crumb(length) for length in range(tree.sids.depth + 1)])
        self.lookup = TitleBox(catalogue, "find an item")
        self.children_grid, self.items_grid = ItemGrid(label="next codes"), ItemGrid(label="items of this prefix")
        self.children_pager = Pager("codes", 12, self._show_children)
        self.items_pager = Pager("items", limit, self._show_items)
        self.details = ItemDetails(catalogue, tree.sids, spaces, self._thumbnails)
        self._heading, self._below, self._message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.crumbs.add_class("trialign-crumbs")
        self.children_grid.add_class("trialign-sid-children")
        self.items_grid.add_class("trialign-sid-items")
        parts = [
            widgets.HBox([self.lookup]),
            self._message,
            self.crumbs,
            self._heading,
            self.children_pager,
            self.children_grid,
            self._below,
            self.items_pager,
            self.items_grid,
            self.details,
        ]
        super().__init__(parts, self._still)
        self.children_grid.observe(lambda change: self._step(change.new), names="chosen")
        self.items_grid.observe(lambda change: self._choose(change.new), names="chosen")
        self.lookup.on_found(self.walk_to)
        self.walk([])

    def walk(self, prefix: Sequence[int]) -> None:
        """Go to a prefix."""
        self.prefix = [int(code) for code in prefix]
        self._children = self._tree.children(self.prefix)
        self._rows = self._tree.rows(self.prefix)
        self._show_crumbs()
        name = self._tree.name(self.prefix)
        self._heading.value = heading_html(
            f"{name}: {len(self._rows)} items. Next codes, most items first: choose one to go down"
            if self._children
            else f"{name}: {len(self._rows)} items, a whole semantic ID"
        )
        self._below.value = heading_html("Items of this prefix: choose one to look at it")
        self.children_pager.reset(len(self._children))
        self.items_pager.reset(len(self._rows))

    def walk_to(self, row: int) -> None:
        """Go to the prefix of an item, all but its last code, and choose it."""
        codes = [int(code) for code in self._tree.sids.codes[row] if code >= 0]
        self.walk(codes[: self._tree.sids.levels - 1])
        self._say(f"{self._catalogue.titles[row]} has the semantic ID {''.join(self._tree.sids.tokens(row))}.")
        self.details.show(row)

    def _step(self, code: int) -> None:
        # -1 is also what an ItemGrid has where nothing is chosen; children without a code can't be walked into.
        if code >= 0:
            self.walk([*self.prefix, code])

    def _choose(self, row: int) -> None:
        if row >= 0:
            self.details.show(row)

    def _crumb(self, length: int) -> widgets.Button:
        button = widgets.Button(tooltip="Go to this prefix", layout={"width": "auto"})
        button.on_click(lambda _: self.walk(self.prefix[:length]))
        return button

    def _show_crumbs(self) -> None:
        for length, button in enumerate(self.crumbs.children):
            button.description = self._tree.name(self.prefix[:length])
            button.disabled = length == len(self.prefix)
            button.layout.display = "inline-block" if length <= len(self.prefix) else "none"

    def _show_children(self, start: int, end: int) -> None:
        self.children_grid.show([self._child_tile(child) for child in self._children[start:end]])

    def _child_tile(self, child: Child) -> Tile:
        words = ", ".join([*child.words, *child.interests]) or "no distinguishing words"
        name = token(len(self.prefix), child.code) if child.code >= 0 else "no suffix"
        note = f"{name}, {len(child.rows)} items"
        return Tile(key=child.code, title=words, note=note, image=self._mosaic(child), frame="")

    def _mosaic(self, child: Child) -> str:
        """Return the first images of a prefix as one square, the larger the fewer they are."""
        found = (self._catalogue.open_image(int(row)) for row in child.rows)
        images = list(islice((image for image in found if image is not None), _MOSAIC**2))
        if not images:
            return ""
        columns = ceil(sqrt(len(images)))
        side = _SIDE // columns
        whole = Image.new("RGB", (_SIDE, _SIDE), "white")
        for place, image in enumerate(images):
            row, column = divmod(place, columns)
            whole.paste(ImageOps.fit(image, (side - 1, side - 1)), (column * side, row * side))
        return image_data_url(whole, _SIDE)

    def _show_items(self, start: int, end: int) -> None:
        sids = self._tree.sids
        self.items_grid.show(
            [self._thumbnails.tile(row, "".join(sids.tokens(int(row)))) for row in self._rows[start:end]]
        )

    def _say(self, text: str) -> None:
        self._message.value = status_html(text)

    def _still(self) -> str:
        return (
            f"{self._heading.value}{self.children_grid.still_html()}{self._below.value}{self.items_grid.still_html()}"
            f"{self.details.still_html()}"
        )


def explore_sids(
    sids: SemanticIds,
    catalogue: Catalogue,
    *,
    captions: Mapping[str, str] | None = None,
    interests: Mapping[str, Sequence[str]] | None = None,
    embeddings: Float[np.ndarray, "items dim"] | None = None,
    quantizer: Quantizer | None = None,
    limit: int = 24,
) -> SidExplorer:
    """Return an explorer of semantic IDs.

    Prefixes are shown with a mosaic of their items and the words and interests that tell them from their siblings. An
    item can be looked up by title; for the one chosen there are neighbours in three spaces, a comparison with another
    item level by level, and what its embedding would become with another code.

    Parameters
    ----------
    sids
        Semantic IDs of the catalogue's items, in its order.
    catalogue
        The items; titles are escaped.
    captions, interests
        By item id, for the words of prefixes.
    embeddings, quantizer
        What was quantized, float32 of shape (items, dim), and by what. Without them there are no neighbours and no
        reconstructions, and the explorer says so.
    limit
        Items shown at once.

    Raises
    ------
    ValueError
        If SIDs or embeddings are of other items than the catalogue's.
    """
    tree = PrefixTree(sids, catalogue, captions, interests)
    spaces = None if embeddings is None or quantizer is None else Spaces(sids, embeddings, quantizer)
    return SidExplorer(tree, catalogue, spaces, limit)
