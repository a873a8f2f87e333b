"""A map of items on jupyter-scatter: colours, image tooltips, a lasso, and two layouts linked."""

import html
import io
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import jscatter
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from itables.widget import ITable
from jaxtyping import Float, Int

from trialign.catalogue import Catalogue
from trialign.explore.explorer import Explorer, heading_html, status_html, table_html
from trialign.explore.item_grid import ItemGrid
from trialign.explore.map_points import OTHER_COLOUR, colours, map_frame
from trialign.explore.thumbnails import Thumbnails
from trialign.plots.labels import draw_legend
from trialign.plots.style import figure_style
from trialign.sids import SemanticIds

#: Columns of the table of chosen items.
_TABLE = ["title", "semantic ID", "category", "popularity"]
#: Most rows of that table, and most images beside it.
_ROWS, _TILES = 500, 12


class EmbeddingMap(Explorer):
    """What `explore_map` returns; its widgets can be set by code as well.

    Attributes
    ----------
    frame : pandas.DataFrame
        What is known of the items shown: see `trialign.explore.map_points.map_frame`.
    colour, search : widgets
        What items are coloured by, and a part of a title or SID whose items are chosen.
    scatters : dict of str to jscatter.Scatter
        One a layout, linked.
    chosen : int64 array
        Places (in `frame`) of the items chosen by lasso or search.
    table : itables.widget.ITable
        The chosen items.
    tiles : ItemGrid
        The first of them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        frame: pd.DataFrame,
        layouts: Mapping[str, Float[np.ndarray, "shown 2"]],
        rows: Int[np.ndarray, " shown"],
    ) -> None:
        self.frame, self._rows, self._layouts = frame, rows, dict(layouts)
        self._thumbnails = Thumbnails(catalogue)
        kinds = [name for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)]
        self.colour = widgets.Dropdown(options=[*kinds, "popularity"], value="kind", description="colour by")
        self.search = widgets.Text(description="choose", placeholder="part of a title or SID", continuous_update=False)
        self.scatters = {name: self._scatter(points) for name, points in self._layouts.items()}
        self.chosen = np.array([], dtype=np.int64)
        self._legend, self._count = widgets.HTML(), widgets.HTML()
        self.table = ITable(frame[_TABLE].iloc[:0], maxBytes=0, classes="display compact")
        self.tiles = ItemGrid(label="the first chosen items")
        maps = jscatter.compose(
            list(zip(self.scatters.values(), map(_plain, self.scatters))),
            sync_selection=True,
            sync_hover=True,
            row_height=420,
        )
        maps.add_class("trialign-map")
        help_text = (
            "A picture for the eye and the mouse: press the lasso at its left and draw around items. By keyboard, "
            "choose items with the field above; the table below holds what is chosen."
        )
        parts = [
            widgets.HBox([self.colour, self.search], layout={"flex_flow": "row wrap"}),
            widgets.HTML(status_html(help_text)),
            maps,
            self._legend,
            self._count,
            self.tiles,
            self.table,
        ]
        super().__init__(parts, self._still)
        self.colour.observe(lambda _: self._paint(), names="value")
        self.search.observe(lambda _: self._find(), names="value")
        for scatter in self.scatters.values():
            scatter.widget.observe(lambda change: self._choose(change.new), names="selection")
        self._paint()
        self._choose(self.chosen)

    def _scatter(self, points: Float[np.ndarray, "shown 2"]) -> jscatter.Scatter:
        data = self.frame.assign(x=points[:, 0], y=points[:, 1])
        scatter = jscatter.Scatter(x="x", y="y", data=data, height=420, background_color="#ffffff")
        scatter.axes(False)
        scatter.size(default=5)
        scatter.tooltip(
            True,
            properties=["title", "semantic ID"],
            preview="title",
            preview_type="image",
            preview_image_height=96,
            size="small",
        )
        scatter.lasso(on_long_press=True)
        _answer_tooltips(scatter.widget, data, lambda place: self._thumbnails.data_url(int(self._rows[place])))
        return scatter

    def _paint(self) -> None:
        name = self.colour.value
        shades = {} if name == "popularity" else colours(self.frame[name].array)
        for scatter in self.scatters.values():
            scatter.color(by=name, map=shades or "viridis")
        if not shades:
            low, high = self.frame[name].min(), self.frame[name].max()
            self._legend.value = status_html(f"Colour: interactions, from {low} (dark violet) to {high} (yellow).")
        else:
            marks = "".join(
                f'<span style="margin-right:12px"><span style="color:{colour}">●</span> {_plain(label)}</span>'
                for label, colour in shades.items()
            )
            self._legend.value = f'<div aria-label="legend">{marks}</div>'

    def _find(self) -> None:
        wanted = self.search.value.strip().lower()
        found = np.array([], dtype=np.int64)
        if wanted:
            texts = self.frame["title"].str.lower() + " " + self.frame["semantic ID"]
            found = np.flatnonzero(texts.str.contains(wanted, regex=False))
        next(iter(self.scatters.values())).selection(found)
        self._choose(found)

    def _choose(self, places: Int[np.ndarray, " chosen"] | None) -> None:
        places = np.array([], dtype=np.int64) if places is None else np.asarray(places, dtype=np.int64)
        if len(places) and np.array_equal(places, self.chosen):
            return  # the linked layout tells it a second time
        self.chosen = places
        shown = self.frame[_TABLE].iloc[places[:_ROWS]]
        self.table.update(shown.reset_index(drop=True))
        self.tiles.show([self._tile(place) for place in places[:_TILES]])
        more = f"; the table holds the first {_ROWS}" if len(places) > _ROWS else ""
        self._count.value = status_html(f"{len(places)} of {len(self.frame)} items are chosen{more}.")

    def _tile(self, place: int) -> Any:
        return self._thumbnails.tile(int(self._rows[place]), self.frame["semantic ID"].iloc[place])

    def _still(self) -> str:
        name = self.colour.value if self.colour.value != "popularity" else "kind"
        counts = self.frame[name].value_counts(sort=False)
        picture = _picture(self._layouts, self.frame[name].array)
        alt = _plain(f"{len(self.frame)} items, coloured by {name}: " + " beside ".join(self._layouts))
        return (
            f'{heading_html(f"{len(self.frame)} items, coloured by {name}")}<img alt="{alt}" src="{picture}" '
            f'style="max-width:100%">{table_html(list(counts.items()), (name, "items"), "items by colour")}'
        )


def explore_map(
    catalogue: Catalogue,
    sids: SemanticIds,
    layouts: Mapping[str, Float[np.ndarray, "shown 2"]],
    *,
    rows: Int[np.ndarray, " shown"] | None = None,
    interests: Mapping[str, Sequence[str]] | None = None,
) -> EmbeddingMap:
    """Return a map of the items, drawn by WebGL, with as many linked layouts as are given.

    Hovering shows an item's image, title and semantic ID; a lasso (or a search by title or SID) puts items into a table
    that can be sorted and searched. Images are read when they are looked at, so a large catalogue opens at once.

    Parameters
    ----------
    catalogue
        The items; titles are escaped.
    sids
        Semantic IDs of the catalogue's items, in its order.
    layouts
        Name → places in the plane, of `trialign.sids.layout.compare_layouts` or, for many items,
        `trialign.explore.map_points.principal_layout`. Put a naive layout beside the one of the SIDs.
    rows
        Rows of the items shown, where it is a sample; all by default.
    interests
        By item id, to colour by.

    Raises
    ------
    ValueError
        If a layout has other items than are shown.
    """
    rows = np.arange(catalogue.n_items) if rows is None else np.asarray(rows)
    for name, points in layouts.items():
        if points.shape != (len(rows), 2):
            raise ValueError(f"layout {name!r} has shape {points.shape}, but {len(rows)} items are shown")
    return EmbeddingMap(catalogue, map_frame(catalogue, sids, rows, interests), layouts, rows)


def _plain(text: object) -> str:
    return html.escape(str(text))


def _answer_tooltips(widget: Any, data: pd.DataFrame, image_of: Callable[[int], str]) -> None:
    """Answer the browser's questions about a point with an image made now, in place of a column of all images."""

    def answer(event: Mapping[str, Any], _buffers: Any) -> None:
        if event.get("type") != "tooltip":
            return
        place = int(event["index"])
        # The browser sets them as text, so they are not escaped here.
        properties = {name: str(data[name].iloc[place]) for name in event["properties"]}
        widget.send({"type": "tooltip", "index": place, "preview": image_of(place), "properties": properties})

    widget._handle_custom_msg = answer  # where jupyter-scatter would look into a column of `data`


def _picture(layouts: Mapping[str, Float[np.ndarray, "shown 2"]], column: pd.Categorical) -> str:
    """Return the layouts as a ``data:`` address of a PNG picture."""
    shades = colours(column)
    size = float(np.clip(4000 / max(1, len(column)), 0.5, 18))
    with figure_style():
        figure, panels = plt.subplots(1, len(layouts), figsize=(4.6 * len(layouts), 4.4), squeeze=False)
        for axes, (name, points) in zip(panels[0], layouts.items()):
            handles = [
                axes.scatter(*points[column == label].T, s=size, color=shades.get(label, OTHER_COLOUR), linewidths=0)
                for label in shades
            ]
            axes.set_title(name, parse_math=False)
            axes.set(xticks=[], yticks=[])
        draw_legend(figure, handles, list(shades), loc="outside lower center", ncols=min(4, len(shades)))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        plt.close(figure)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
