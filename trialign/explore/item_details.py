"""One item beside others: its neighbours in three spaces, another item, and what another code would make of it."""

import html

import ipywidgets as widgets
import numpy as np

from trialign.catalogue import Catalogue
from trialign.explore.explorer import heading_html, status_html, table_html
from trialign.explore.item_grid import ItemGrid
from trialign.explore.neighbours import Spaces
from trialign.explore.thumbnails import Thumbnails
from trialign.explore.titles import TitleBox
from trialign.sids import SemanticIds
from trialign.sids.semantic_ids import token

_NOTHING = "Give embeddings and quantizer to see neighbours and reconstructions."


class ItemDetails(widgets.VBox):
    """Three pages about one item.

    Parameters
    ----------
    catalogue, sids
        The items and their semantic IDs.
    spaces
        Where neighbours are looked for; None leaves codes alone.
    thumbnails
        Their images.
    most
        Neighbours in each space.

    Attributes
    ----------
    row : int or None
        The item.
    pages : widgets.Tab
        Neighbours, comparison, another code.
    other : TitleBox
        The item compared with.
    level, code : widgets
        The code that is replaced, and by what.
    """

    def __init__(
        self, catalogue: Catalogue, sids: SemanticIds, spaces: Spaces | None, thumbnails: Thumbnails, most: int = 8
    ) -> None:
        self._catalogue, self._sids, self._spaces, self._thumbnails = catalogue, sids, spaces, thumbnails
        self._most = most
        self.row: int | None = None
        self._title = widgets.HTML(status_html("No item is chosen."))
        self.grids = {name: ItemGrid(label=f"nearest in {name}") for name in ("embedding", "reconstruction", "SID")}
        self._overlap = widgets.HTML()
        self.other, self._comparison = TitleBox(catalogue, "compare with"), widgets.HTML()
        levels = [(f"level {level + 1}", level) for level in range(sids.levels)]
        self.level = widgets.Dropdown(options=levels, description="replace at")
        self.code = widgets.BoundedIntText(0, min=0, max=sids.codebook_sizes[0] - 1, description="by code")
        self._changed, self.changed_grid = widgets.HTML(), ItemGrid(label="nearest to the changed codes")
        self.pages = widgets.Tab([self._neighbour_page(), widgets.VBox([self.other, self._comparison]),
                                  self._code_page()])  # fmt: skip
        self.pages.titles = ("neighbours", "compare two items", "replace a code")
        self.pages.layout.display = "none"
        super().__init__([self._title, self.pages])
        self.add_class("trialign-item-details")
        self.other.on_found(self._compare)
        self.level.observe(lambda _: self._new_level(), names="value")
        self.code.observe(lambda _: self._replace(), names="value")

    def _neighbour_page(self) -> widgets.VBox:
        if self._spaces is None:
            return widgets.VBox([widgets.HTML(status_html(_NOTHING))])
        named = [
            part
            for name, grid in self.grids.items()
            for part in (widgets.HTML(heading_html(f"Nearest in {name}")), grid)
        ]
        return widgets.VBox([*named, self._overlap])

    def _code_page(self) -> widgets.VBox:
        if self._spaces is None:
            return widgets.VBox([widgets.HTML(status_html(_NOTHING))])
        return widgets.VBox([widgets.HBox([self.level, self.code]), self._changed, self.changed_grid])

    def show(self, row: int) -> None:
        """Show an item."""
        self.row = int(row)
        sid = "".join(self._sids.tokens(self.row))
        self._title.value = heading_html(f"{self._catalogue.titles[self.row]}: {sid}")
        self.pages.layout.display = "block"
        if self._spaces is not None:
            self._show_neighbours(self._spaces)
            self._new_level()
        self._comparison.value = ""

    def _show_neighbours(self, spaces: Spaces) -> None:
        assert self.row is not None
        near, cosines = spaces.by_embedding(self.row, self._most)
        rebuilt, rebuilt_cosines = spaces.by_reconstruction(self.row, self._most)
        alike, shared = spaces.by_sid(self.row, self._most)
        notes = {
            "embedding": (near, [f"cosine {value:.2f}" for value in cosines]),
            "reconstruction": (rebuilt, [f"cosine {value:.2f}" for value in rebuilt_cosines]),
            "SID": (alike, [f"{length} codes shared" for length in shared]),
        }
        for name, (rows, texts) in notes.items():
            self.grids[name].show([self._thumbnails.tile(row, text) for row, text in zip(rows, texts)])
        both = len(set(near.tolist()) & set(alike.tolist()))
        kept = len(set(near.tolist()) & set(rebuilt.tolist()))
        self._overlap.value = status_html(
            f"Of the {len(near)} nearest in the embedding, {kept} are among the nearest reconstructions and {both} "
            "among the nearest semantic IDs."
        )

    def _compare(self, other: int) -> None:
        if self.row is None:
            return
        titles = self._catalogue.titles
        codes = self._sids.codes[[self.row, other]]
        same = int(np.cumprod(codes[0] == codes[1]).sum())
        text = f"{titles[self.row]} and {titles[other]} share their first {same} codes."
        if self._spaces is None:
            rows = [(level + 1, int(a), int(b)) for level, (a, b) in enumerate(codes.T)]
            table = table_html(rows, ("level", "one", "the other"), "codes side by side")
        else:
            text += f" The cosine of their embeddings is {self._spaces.cosine(self.row, other):.3f}."
            rows = [
                (level, token(level - 1, a), token(level - 1, b), "same" if a == b else "other", f"{cosine:.3f}")
                for level, a, b, cosine in self._spaces.by_depth(self.row, other)
            ]
            columns = ("level", "one", "the other", "code", "cosine of the codes so far")
            table = table_html(rows, columns, "codes side by side")
        self._comparison.value = status_html(text) + table

    def _new_level(self) -> None:
        if self.row is None:
            return
        level = self.level.value
        self.code.max = self._sids.codebook_sizes[level] - 1
        self.code.value = int(self._sids.codes[self.row, level])
        self._replace()

    def _replace(self) -> None:
        if self.row is None or self._spaces is None:
            return
        codes = self._sids.codes[self.row, : self._sids.levels].copy()
        codes[self.level.value] = self.code.value
        rows, cosines = self._spaces.of_codes(codes.tolist(), self._most)
        holders = np.flatnonzero((self._sids.codes[:, : self._sids.levels] == codes).all(axis=1))
        name = "".join(token(level, int(code)) for level, code in enumerate(codes))
        owner = f"is that of {len(holders)} items" if len(holders) else "is that of no item: the trie would refuse it"
        self._changed.value = status_html(f"{name} {owner}. Nearest reconstructions to what it stands for:")
        self.changed_grid.show([self._thumbnails.tile(row, f"cosine {c:.2f}") for row, c in zip(rows, cosines)])

    def still_html(self) -> str:
        """Return the item and its neighbours as HTML; nothing where none is chosen."""
        if self.row is None:
            return ""
        grids = "".join(
            f"<p>{html.escape(grid.label)}</p>{grid.still_html()}" for grid in self.grids.values() if grid.tiles
        )
        return f"{self._title.value}{grids}{self._overlap.value}"
