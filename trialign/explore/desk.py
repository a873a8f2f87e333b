"""The desk for captions and interests: image, caption, reasoning and tags side by side, to accept, edit or reject."""

import getpass
import html
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from jaxtyping import Int

from trialign.catalogue import Catalogue
from trialign.describe.overrides import COLUMNS, Kind, Overrides, Verdict, agreement, answer_key
from trialign.explore.explorer import Explorer, heading_html, status_html, table_html
from trialign.explore.thumbnails import Thumbnails
from trialign.explore.titles import TitleBox

#: What can be looked through.
FILTERS = ("all", "not judged", "failed", "edited", "rejected")


class DescriptionDesk(Explorer):
    """What `explore_descriptions` returns; its widgets can be set by code as well.

    Attributes
    ----------
    row : int
        The item on the desk.
    author : widgets.Text
        Who judges.
    caption, interests, reason : widgets
        The fields; interests are separated by commas.
    accept, edit, reject : dict of kind to widgets.Button
        Judge the caption, or the interests.
    before, after, filter : widgets
        Go through the items.
    overrides : Overrides
        Where judgements are kept.
    """

    def __init__(
        self, catalogue: Catalogue, captions: pd.DataFrame, interests: pd.DataFrame, overrides: Overrides
    ) -> None:
        self._catalogue, self.overrides = catalogue, overrides
        self._tables: dict[Kind, pd.DataFrame] = {"caption": captions, "interest": interests}
        self.row = 0
        self.author = widgets.Text(getpass.getuser(), description="who judges")
        self.filter = widgets.Dropdown(options=FILTERS, description="show")
        self.before = widgets.Button(description="before", tooltip="The item before this one")
        self.after = widgets.Button(description="after", tooltip="The item after this one")
        self.lookup = TitleBox(catalogue, "find an item")
        self.image = widgets.HTML()
        self._thumbnails = Thumbnails(catalogue, size=256)
        self.caption = widgets.Textarea(description="caption", layout={"width": "100%", "height": "90px"})
        self.interests = widgets.Text(description="interests", layout={"width": "100%"})
        self.reason = widgets.Text(description="reason", placeholder="why, for edits and rejections")
        self._answers, self._reasoning = widgets.HTML(), widgets.HTML()
        self._message, self._statistics = widgets.HTML(), widgets.HTML()
        fields = [self.caption, self._buttons("caption"), self.interests, self._buttons("interest"), self.reason]
        side = widgets.VBox([*fields, self._message], layout={"flex": "1 1 360px"})
        parts = [
            widgets.HBox([self.author, self.filter, self.before, self.after], layout={"flex_flow": "row wrap"}),
            self.lookup,
            widgets.HBox([self.image, side], layout={"flex_flow": "row wrap"}),
            self._answers,
            self._reasoning,
            self._statistics,
        ]
        super().__init__(parts, self._still)
        self.add_class("trialign-desk")
        self.before.on_click(lambda _: self._turn(-1))
        self.after.on_click(lambda _: self._turn(1))
        self.filter.observe(lambda _: self._turn(0), names="value")
        self.lookup.on_found(self.show)
        self.show(0)

    def _buttons(self, kind: Kind) -> widgets.HBox:
        tips = {"accepted": "accept", "edited": "keep my text", "rejected": "reject"}
        buttons = []
        for verdict, name in tips.items():
            button = widgets.Button(
                description=f"{name}: {kind}", tooltip=f"{name}: the {kind}", layout={"width": "auto"}
            )
            button.add_class(f"trialign-{kind}-{verdict}")
            button.on_click(lambda _, verdict=verdict: self.judge(kind, verdict))
            buttons.append(button)
        return widgets.HBox(buttons)

    def judge(self, kind: Kind, verdict: Verdict) -> None:
        """Keep a judgement of the answer on the desk; a field that is no valid answer is told and not kept."""
        value: str | list[str] = self.caption.value
        if kind == "interest":
            value = [tag.strip() for tag in self.interests.value.split(",") if tag.strip()]
        row = self._tables[kind].iloc[self.row]
        key = answer_key(row["model"], _plain(row[COLUMNS[kind]]))
        try:
            self.overrides.add(row["item_id"], kind, key, verdict, self.author.value, value, self.reason.value)
        except (ValueError, OSError) as error:
            self._message.value = status_html(f"Not kept: {error}")
            return
        self.show(self.row)
        self._message.value = status_html(f"Kept: {kind} {verdict} by {self.author.value}.")

    def show(self, row: int) -> None:
        """Put an item on the desk."""
        self.row = int(row)
        caption, interest = (self._tables[kind].iloc[self.row] for kind in COLUMNS)
        judged = {kind: self.overrides.apply(self._tables[kind].iloc[[self.row]], kind).iloc[0] for kind in COLUMNS}
        self.image.value = self._image_html()
        self.caption.value = judged["caption"]["caption"] or caption["caption"]
        self.interests.value = ", ".join(judged["interest"]["interests"] if len(judged["interest"]["interests"])
                                         else interest["interests"])  # fmt: skip
        self.reason.value = ""
        self._answers.value = self._answers_html(caption, interest)
        self._reasoning.value = self._reasoning_html(interest)
        self._statistics.value = self._statistics_html()
        self._message.value = status_html(f"Item {self.row + 1} of {self._catalogue.n_items}.")

    def _image_html(self) -> str:
        title, address = self._catalogue.titles[self.row], self._thumbnails.data_url(self.row)
        picture = f'<img alt="image of the item" style="max-width:260px" src="{address}">' if address else "no image"
        item_id = html.escape(self._catalogue.items["item_id"][self.row])
        return f'<div style="width:270px">{picture}<br><b>{html.escape(title)}</b><br><code>{item_id}</code></div>'

    def _answers_html(self, caption: pd.Series, interest: pd.Series) -> str:
        rows = []
        answers: tuple[tuple[Kind, pd.Series, str], ...] = (
            ("caption", caption, caption["caption"]),
            ("interest", interest, ", ".join(interest["interests"])),
        )
        for kind, row, text in answers:
            judged = self.overrides.latest(kind).get(row["item_id"])
            said = "not judged" if judged is None else f"{judged.verdict} by {judged.author}, {judged.when[:16]}"
            if judged is not None and judged.answer != answer_key(row["model"], _plain(row[COLUMNS[kind]])):
                said += "; the model has answered anew since"
            rows.append((kind, text or f"none: {row['error']}", row["model"], said))
        return table_html(rows, ("", "the model's answer", "model", "people"), "answers and judgements")

    def _reasoning_html(self, interest: pd.Series) -> str:
        text = html.escape(interest["reasoning"])
        return f'<details><summary>reasoning</summary><p style="white-space:pre-wrap">{text}</p></details>'

    def _statistics_html(self) -> str:
        tables = []
        for kind in COLUMNS:
            found = agreement(_listed(self._tables[kind], kind), self.overrides, kind)
            rows = [
                (row.model, row.judged, *(f"{share:.0%}" for share in (row.accepted, row.edited, row.rejected)),
                 f"{row.overlap:.2f}")
                for row in found.itertuples()
            ]  # fmt: skip
            columns = ("model", "judged", "accepted", "edited", "rejected", "overlap")
            tables.append(table_html(rows, columns, f"agreement on {COLUMNS[kind]}") if rows else "")
        return "".join(tables) or status_html("Nothing is judged yet.")

    def _turn(self, step: int) -> None:
        rows = self._filtered()
        if not len(rows):
            self._message.value = status_html(f"No item is {self.filter.value}.")
            return
        place = int(np.searchsorted(rows, self.row + (step > 0))) - (step < 0)
        self.show(int(rows[place % len(rows)]))

    def _filtered(self) -> Int[np.ndarray, " items"]:
        wanted = self.filter.value
        found = np.full(self._catalogue.n_items, wanted == "all")
        for kind in COLUMNS:
            table = self._tables[kind]
            verdicts = {item: judged.verdict for item, judged in self.overrides.latest(kind).items()}
            state = table["item_id"].map(verdicts).fillna("not judged").where(table["source"] != "failed", "failed")
            found |= (state == wanted).to_numpy()
        return np.flatnonzero(found)

    def export(self, path: str | Path) -> Path:
        """Write all answers beside what people made of them to a CSV or Parquet file."""
        return export_descriptions(path, self._tables, self.overrides)

    def _still(self) -> str:
        title = self._catalogue.titles[self.row]
        return (
            f"{heading_html(title)}{self.image.value}{self._answers.value}{self._reasoning.value}"
            f"{self._statistics.value}"
        )


def explore_descriptions(
    catalogue: Catalogue, captions: pd.DataFrame, interests: pd.DataFrame, overrides: str | Path
) -> DescriptionDesk:
    """Return a desk for a run's captions and interests.

    Judgements go into a file of their own, with who and when; the model's answers stay as they are.

    Parameters
    ----------
    catalogue
        The items.
    captions, interests
        ``captions.parquet`` and ``interests.parquet`` of notebooks 02 and 03, in the catalogue's order.
    overrides
        The file of judgements, ending in ``.jsonl``; it need not exist yet.

    Raises
    ------
    ValueError
        If the tables are of other items than the catalogue's.
    """
    ids = catalogue.items["item_id"].tolist()
    for name, table in (("captions", captions), ("interests", interests)):
        if table["item_id"].tolist() != ids:
            raise ValueError(f"the {name} are of other items, or in another order; fix: load all of one run")
    return DescriptionDesk(catalogue, captions, _listed(interests, "interest"), Overrides(overrides))


def export_descriptions(path: str | Path, tables: dict[Kind, pd.DataFrame], overrides: Overrides) -> Path:
    """Write answers and judgements side by side.

    Parameters
    ----------
    path
        A ``.csv`` or ``.parquet`` file: item_id, kind, model, answer, final, verdict, author, when, reason.
    tables
        Kind → table of descriptions.
    overrides
        The judgements.

    Raises
    ------
    ValueError
        For another ending.
    """
    path, rows = Path(path), []
    for kind, table in tables.items():
        final, latest, column = overrides.apply(table, kind), overrides.latest(kind), COLUMNS[kind]
        for item_id, model, answer, after in zip(table["item_id"], table["model"], table[column], final[column]):
            judged = latest.get(item_id)
            said = (judged.verdict, judged.author, judged.when, judged.reason) if judged else ("", "", "", "")
            rows.append((item_id, kind, model, _joined(answer), _joined(after), *said))
    columns = ["item_id", "kind", "model", "answer", "final", "verdict", "author", "when", "reason"]
    frame = pd.DataFrame(rows, columns=columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        raise ValueError(f"{path.name}: unknown ending; fix: give a .csv or .parquet file")
    return path


def _listed(table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Return the table with lists of tags, which Parquet gives back as arrays."""
    return table.assign(interests=table["interests"].map(list)) if kind == "interest" else table


def _plain(answer: object) -> str | list[str]:
    return answer if isinstance(answer, str) else list(answer)  # type: ignore[call-overload]


def _joined(answer: str | list[str]) -> str:
    return answer if isinstance(answer, str) else " | ".join(answer)
