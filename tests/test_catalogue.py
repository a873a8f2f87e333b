"""The catalogue folder, its checks, the k-core and the leave-one-out split."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trialign.catalogue import Catalogue, Split, check_folder, leave_one_out
from trialign.images import open_rgb
from trialign.plots.catalogue import history_lengths, history_strip, item_grid, long_tail
from trialign.tables import as_text, record_lines

ITEMS = "item_id,title,description,image\n007,Lamp,warm light,images/a.png\n008,Mug,,\n7,Chair,,images/b.png\n"
INTERACTIONS = "user_id,item_id,timestamp\nu2,007,5\nu1,7,3\nu2,008,5\nu1,008,1\nu2,7,4\nu1,007,3\nu3,7,9\n"


def make_folder(folder: Path, items: str = ITEMS, interactions: str = INTERACTIONS, suffix: str = ".csv") -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(folder / "images" / "a.png")
    Image.new("RGBA", (4, 3), (0, 0, 255, 0)).save(folder / "images" / "b.png")
    (folder / f"items{suffix}").write_text(items, encoding="utf-8")
    (folder / f"interactions{suffix}").write_text(interactions, encoding="utf-8")
    return folder


def frames(lengths: list[int], n_items: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    items = pd.DataFrame({"item_id": [f"i{row}" for row in range(n_items)], "title": "thing"})
    rows = [
        (f"u{user}", f"i{(user + step) % n_items}", step)
        for user, length in enumerate(lengths)
        for step in range(length)
    ]
    return items, pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def problems(folder: Path) -> list[tuple]:
    return [
        tuple(row)
        for row in check_folder(folder, progress=False).table()[["file", "row", "problem"]].astype(object).to_numpy()
    ]


def test_load_keeps_ids_as_text_and_orders_by_user_time_and_file(tmp_path: Path) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path / "shop"))
    assert catalogue.items["item_id"].tolist() == ["007", "008", "7"]
    assert catalogue.name == "shop"
    # u2 appears first; of u2's two rows at time 5, and of u1's two at time 3, the earlier line comes first
    assert catalogue.interactions.to_numpy().tolist() == [
        ["u2", "7", 4],
        ["u2", "007", 5],
        ["u2", "008", 5],
        ["u1", "008", 1],
        ["u1", "7", 3],
        ["u1", "007", 3],
        ["u3", "7", 9],
    ]
    assert catalogue.interactions["timestamp"].dtype == np.int64
    assert catalogue.text_columns == ["description"]
    assert catalogue.titles == ["Lamp", "Mug", "Chair"]
    assert (catalogue.n_items, catalogue.n_users) == (3, 3)
    assert catalogue.items["description"].tolist() == ["warm light", "", ""]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_all_three_file_types_give_the_same_catalogue(tmp_path: Path, suffix: str) -> None:
    make_folder(tmp_path / "csv")
    other = make_folder(tmp_path / "other")
    for stem in ("items", "interactions"):
        text = pd.read_csv(other / f"{stem}.csv", dtype=str, keep_default_na=False)
        (other / f"{stem}.csv").unlink()
        if suffix == ".parquet":
            # as anyone would write it: numbers as numbers, missing cells as nulls
            text = text.replace("", None)
            if stem == "interactions":
                text["timestamp"] = text["timestamp"].astype(float)
            text.to_parquet(other / f"{stem}.parquet")
        else:
            text.to_csv(other / f"{stem}{suffix}", sep="," if suffix == ".csv" else "\t", index=False)
    first, second = Catalogue.load(tmp_path / "csv"), Catalogue.load(other)
    pd.testing.assert_frame_equal(first.items, second.items)
    pd.testing.assert_frame_equal(first.interactions, second.interactions)


def test_tsv_fields_are_literal_and_csv_fields_are_quoted(tmp_path: Path) -> None:
    make_folder(tmp_path, 'item_id\ttitle\n1\t"Touch Me" 17" brush\n', "user_id\titem_id\ttimestamp\nu\t1\t1\n", ".tsv")
    assert Catalogue.load(tmp_path).titles == ['"Touch Me" 17" brush']
    other = make_folder(tmp_path / "o", 'item_id,title\n1,"a ""b"", c\nd"\n', "user_id,item_id,timestamp\nu,1,1\n")
    assert Catalogue.load(other).titles == ['a "b", c\nd']


def test_bom_and_windows_line_ends(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for stem in ("items", "interactions"):
        path = folder / f"{stem}.csv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Catalogue.load(folder).interactions["timestamp"].tolist() == [4, 5, 5, 1, 3, 3, 9]


def test_images_open_as_rgb_with_transparency_on_white(tmp_path: Path) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path))
    assert catalogue.open_image(1) is None
    assert catalogue.image_path(1) is None
    assert catalogue.open_image(0).getpixel((0, 0)) == (255, 0, 0)
    assert catalogue.open_image(2).mode == "RGB"
    assert catalogue.open_image(2).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert open_rgb(tmp_path / "x.jpg").size == (4, 8)


def test_rows(tmp_path: Path) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path))
    assert catalogue.rows(["7", "007", "7"]).tolist() == [2, 0, 2]
    assert catalogue.rows([]).dtype == np.int64
    with pytest.raises(ValueError, match="'9'"):
        catalogue.rows(["7", "9"])


def test_select_and_with_images_take_their_interactions_along(tmp_path: Path) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path))
    chosen = catalogue.select([2, 0])
    assert chosen.items["item_id"].tolist() == ["7", "007"]
    assert chosen.interactions["item_id"].tolist() == ["7", "007", "7", "007", "7"]
    assert catalogue.with_images().items["item_id"].tolist() == ["007", "7"]
    with pytest.raises(ValueError, match="twice"):
        catalogue.select([1, 1])


def test_statistics(tmp_path: Path) -> None:
    figures = Catalogue.load(make_folder(tmp_path)).statistics()
    assert figures["items"] == 3
    assert figures["users"] == 3
    assert figures["interactions"] == 7
    assert figures["density"] == pytest.approx(7 / 9)
    assert figures["mean history"] == pytest.approx(7 / 3)
    assert figures["items without interactions"] == 0
    assert figures["share with image"] == pytest.approx(2 / 3)
    assert figures["share with description"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("copy_images", [False, True])
def test_save_and_load_round_trip(tmp_path: Path, copy_images: bool) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path / "shop"))
    again = Catalogue.load(catalogue.save(tmp_path / "saved", copy_images=copy_images))
    pd.testing.assert_frame_equal(catalogue.items, again.items)
    pd.testing.assert_frame_equal(catalogue.interactions, again.interactions)
    assert again.name == "shop"
    assert again.open_image(0).tobytes() == catalogue.open_image(0).tobytes()
    assert (tmp_path / "saved" / "images" / "a.png").exists() == copy_images
    root = json.loads((tmp_path / "saved" / "catalogue.json").read_text())["images_root"]
    assert (root == ".") == copy_images


def test_saving_beside_csv_tables_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with pytest.raises(ValueError, match=r"items\.csv: already there"):
        Catalogue.load(folder).save(folder)


# ---------------------------------------------------------------- checks


def test_a_sound_folder_has_statistics_and_no_problems(tmp_path: Path) -> None:
    check = check_folder(make_folder(tmp_path), progress=False)
    assert check.problems == []
    assert check.statistics["items"] == 3
    check.raise_problems()
    assert check.table().empty


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    items = (
        "item_id,title,image\n"
        "1,One,images/a.png\n"
        "\n"  # a blank line counts as a line
        '2,"Two\nlines",images/none.png\n'
        "1,Again,../secret.png\n"
        "3, ,\n"
        ",No id,\n"
        "4,nan,\n"
        "5,Five,extra,field\n"
        "6,Six,images/broken.png\n"
    )
    rows = ["u,1,-5", "u,1,", "u,nowhere,1", ",1,1", "u,1,1.5", "u,1,2.0", "u,1,NaN", "u,1,99999999999999999999"]
    interactions = "user_id,item_id,timestamp\n" + "\n".join(rows)
    folder = make_folder(tmp_path / "shop", items, interactions)
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "images" / "broken.png").write_bytes((folder / "images" / "a.png").read_bytes()[:40])
    found = problems(folder)
    expected = [
        ("interactions.csv", 2, "timestamp is negative ('-5')"),
        ("interactions.csv", 3, "timestamp is not a whole number"),
        ("interactions.csv", 4, "unknown item 'nowhere'"),
        ("interactions.csv", 5, "user_id is empty"),
        ("interactions.csv", 6, "timestamp is not a whole number ('1.5')"),
        ("interactions.csv", 8, "timestamp is not a whole number ('NaN')"),
        ("interactions.csv", 9, "timestamp is not a whole number ('99999999999999999999')"),
        ("items.csv", 4, "image 'images/none.png' is missing"),
        ("items.csv", 6, "item_id '1' was used before"),
        ("items.csv", 6, "image '../secret.png': the image lies outside the catalogue's folder"),
        ("items.csv", 7, "title is empty"),
        ("items.csv", 8, "item_id is empty"),
        ("items.csv", 9, "title is empty ('nan')"),
        ("items.csv", 10, "4 fields where the header has 3"),
    ]
    assert [row for row in found if row[1] != 11] == expected
    broken = [row for row in found if row[1] == 11]
    assert len(broken) == 1
    assert "not a readable image" in broken[0][2]
    check = check_folder(folder, progress=False)
    assert check.statistics is None
    assert all(problem.fix for problem in check.problems)
    with pytest.raises(ValueError, match=r"items\.csv, line 7: title is empty; fix: give the item a title"):
        check.raise_problems()
    with pytest.raises(ValueError, match="and 4 more problems"):  # the broken image is found only when decoded
        Catalogue.load(folder)


def test_nullable_integers_of_parquet(tmp_path: Path) -> None:
    ids = pd.array([1, None], dtype="Int64")
    pd.DataFrame({"item_id": ids, "title": ["a", "b"]}).to_parquet(tmp_path / "items.parquet")
    pd.DataFrame({"user_id": ids, "item_id": 1, "timestamp": ids}).to_parquet(tmp_path / "interactions.parquet")
    assert problems(tmp_path) == [
        ("interactions.parquet", 2, "user_id is empty"),
        ("interactions.parquet", 2, "timestamp is not a whole number"),
        ("items.parquet", 2, "item_id is empty"),
    ]


def test_parquet_problems_name_rows(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": [1, 2], "title": ["a", None]}).to_parquet(tmp_path / "items.parquet")
    times = pd.Series([1.0, float("nan")])
    pd.DataFrame({"user_id": ["u", "u"], "item_id": [1, 2], "timestamp": times}).to_parquet(
        tmp_path / "interactions.parquet"
    )
    assert problems(tmp_path) == [
        ("interactions.parquet", 2, "timestamp is not a whole number"),
        ("items.parquet", 2, "title is empty"),
    ]
    with pytest.raises(ValueError, match=r"items\.parquet, row 2: title is empty"):
        Catalogue.load(tmp_path)


@pytest.mark.parametrize(
    ("items", "interactions", "message"),
    [
        ("item_id,name\n1,x\n", INTERACTIONS, r"items.csv: no column 'title' \(there are: item_id, name\)"),
        ("item_id,title\n", INTERACTIONS, "items.csv: there are no items; fix"),
        ("", INTERACTIONS, "items.csv: the file is empty; fix"),
        ("item_id,title\n1,x\n", "user_id,item_id,timestamp\n", "interactions.csv: there are no interactions"),
        ("item_id,title\n1,x\n", "user_id,item_id\nu,1\n", "interactions.csv: no column 'timestamp'"),
        (
            ",item_id,title\n0,1,x\n",
            "user_id,item_id,timestamp\nu,1,1\n",
            r"items.csv: column 1 has no name.*index=False",
        ),
        ("item_id,title,title\n1,x,y\n", "user_id,item_id,timestamp\nu,1,1\n", "items.csv: .*name every column once"),
    ],
)
def test_whole_file_problems(tmp_path: Path, items: str, interactions: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catalogue.load(make_folder(tmp_path, items, interactions))


def test_missing_double_and_undecodable_tables(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    pd.DataFrame({"item_id": ["1"]}).to_parquet(folder / "items.parquet")
    assert problems(folder) == [("items.parquet", pd.NA, "items.parquet and items.csv both exist")]
    (folder / "items.parquet").write_bytes(b"not parquet")
    (folder / "items.csv").unlink()
    assert "not a readable Parquet file" in problems(folder)[0][2]
    (folder / "items.parquet").unlink()
    assert problems(folder) == [("items.*", pd.NA, "there is no items table")]
    (folder / "items.csv").write_bytes(b"item_id,title\n1,ok\n2,caf\xe9\n")
    assert problems(folder) == [("items.csv", 3, "not UTF-8 text")]
    (folder / "catalogue.json").write_text("[1]")
    assert problems(folder)[0][0] == "catalogue.json"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_folder(tmp_path / "nowhere")


def test_links_and_absolute_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    items = f"item_id,title,image\n1,a,images/link.png\n2,b,{secret}\n3,c,images/../images/a.png\n"
    folder = make_folder(tmp_path / "shop", items, "user_id,item_id,timestamp\nu,1,1\n")
    (folder / "images" / "link.png").symlink_to(secret)
    assert [(row, "outside" in problem) for _, row, problem in problems(folder)] == [(2, True), (3, True)]


def test_huge_images_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 4 x 3 pixels: beyond the limit, where Pillow only warns
    catalogue = Catalogue.load(folder)
    with pytest.raises(ValueError, match=r"a\.png: the image is huge"):
        catalogue.open_image(0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # beyond twice the limit, where Pillow raises
    with pytest.raises(ValueError, match=r"a\.png: the image is huge"):
        catalogue.open_image(0)
    assert [row for _, row, problem in problems(folder) if "huge" in problem] == [2, 4]


def test_an_image_that_went_away(tmp_path: Path) -> None:
    catalogue = Catalogue.load(make_folder(tmp_path))
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"images/a\.png"):
        catalogue.open_image(0)
    (tmp_path / "images" / "a.png").write_text("<html>")
    with pytest.raises(ValueError, match="not a readable image"):
        catalogue.open_image(0)


def test_from_tables_checks_too() -> None:
    items, interactions = frames([3])
    items.loc[4, "title"] = None
    with pytest.raises(ValueError, match="items, row 5: title is empty"):
        Catalogue.from_tables(items, interactions, ".", "x")


def test_text_of_parquet_cells() -> None:
    assert as_text(pd.Series([1.0, None, 3.0])).tolist() == ["1", "", "3"]
    assert as_text(pd.Series([1.5, None])).tolist() == ["1.5", ""]
    assert as_text(pd.Series([["a", "b"], None], dtype=object)).tolist() == ["a | b", ""]
    assert as_text(pd.Series([True, False])).tolist() == ["True", "False"]


@given(st.lists(st.text(alphabet='ab",\n\r ', max_size=6), min_size=1, max_size=8))
@settings(max_examples=30)
def test_csv_cells_round_trip_and_lines_are_right(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    frame = pd.DataFrame({"item_id": [f"i{row}" for row in range(len(texts))], "title": ["t" + text for text in texts]})
    frame.to_csv(folder / "items.csv", index=False, quoting=1)
    pd.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [1]}).to_csv(
        folder / "interactions.csv", index=False
    )
    assert Catalogue.load(folder).titles == frame["title"].tolist()
    content = (folder / "items.csv").read_bytes().decode()
    for row, line in enumerate(record_lines(folder / "items.csv")[1:]):
        position = content.index(f'"i{row}"')
        before = content[:position].replace("\r\n", "\n").replace("\r", "\n")
        assert line == before.count("\n") + 1


# ---------------------------------------------------------------- k-core and split


def test_k_core_is_iterated() -> None:
    items = pd.DataFrame({"item_id": list("abcd"), "title": "t"})
    pairs = ["xa", "xb", "ya", "yb", "zb", "zc", "wc", "wd"]  # d falls, then w, then c, then z: one after the other
    interactions = pd.DataFrame([(pair[0], pair[1], 0) for pair in pairs], columns=["user_id", "item_id", "timestamp"])
    core = Catalogue.from_tables(items, interactions, ".", "x").k_core(2)
    assert core.items["item_id"].tolist() == ["a", "b"]
    assert sorted(core.interactions["user_id"] + core.interactions["item_id"]) == ["xa", "xb", "ya", "yb"]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=60), st.integers(1, 4))
@settings(max_examples=40)
def test_k_core_agrees_with_a_naive_one(pairs: list[tuple[int, int]], k: int) -> None:
    items = pd.DataFrame({"item_id": [str(row) for row in range(8)], "title": "t"})
    interactions = pd.DataFrame([(f"u{u}", str(i), 0) for u, i in pairs], columns=["user_id", "item_id", "timestamp"])
    catalogue = Catalogue.from_tables(items, interactions, ".", "x")
    left = [(f"u{u}", str(i)) for u, i in pairs]
    while True:
        users, chosen = [u for u, _ in left], [i for _, i in left]
        kept = [(u, i) for u, i in left if users.count(u) >= k and chosen.count(i) >= k]
        if kept == left:
            break
        left = kept
    if not left:
        with pytest.raises(ValueError, match="smaller k"):
            catalogue.k_core(k)
        return
    core = catalogue.k_core(k)
    assert sorted(zip(core.interactions["user_id"], core.interactions["item_id"])) == sorted(left)
    assert set(core.items["item_id"]) == {i for _, i in left}


def test_k_core_refuses_zero() -> None:
    items, interactions = frames([3])
    with pytest.raises(ValueError, match="at least 1"):
        Catalogue.from_tables(items, interactions, ".", "x").k_core(0)


def test_leave_one_out_by_hand() -> None:
    items, interactions = frames([4, 2, 3, 1])
    split = leave_one_out(Catalogue.from_tables(items, interactions, ".", "x"))
    assert split.users == ["u0", "u2"]
    assert split.excluded == ["u1", "u3"]
    assert [history.tolist() for history in split.train] == [[0, 1], [2], [1, 2], [3]]
    assert split.validation.tolist() == [2, 3]
    assert split.test.tolist() == [3, 4]
    assert [history.tolist() for history in split.histories("validation")] == [[0, 1], [2]]
    assert [history.tolist() for history in split.histories("test")] == [[0, 1, 2], [2, 3]]
    assert split.n_items == 30
    with pytest.raises(ValueError, match="'train'"):
        split.histories("train")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
@settings(max_examples=25)
def test_split_loses_and_leaks_nothing(lengths: list[int]) -> None:
    items, interactions = frames(lengths)
    catalogue = Catalogue.from_tables(items, interactions, ".", "x")
    split = leave_one_out(catalogue)
    total = sum(len(history) for history in split.train) + len(split.validation) + len(split.test)
    assert total == len(interactions)
    whole = interactions.groupby("user_id")["item_id"].apply(list)
    for user, history, target in zip(split.users, split.histories("test"), split.test):
        assert [f"i{row}" for row in [*history, target]] == whole[user]
    assert sorted([*split.users, *split.excluded]) == sorted(whole.index)


def test_split_of_uneven_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="for every user"):
        Split(["u"], [], np.array([0]), np.array([1]), 2)


# ---------------------------------------------------------------- figures


def test_figures_show_the_numbers_and_take_any_title(tmp_path: Path) -> None:
    items = ITEMS.replace("Lamp", "$\\frac{Lamp <b>")
    catalogue = Catalogue.load(make_folder(tmp_path, items))
    grid = item_grid(catalogue, columns=2)
    assert sum(bool(axes.images) for axes in grid.axes) == 3
    assert any("\\frac{Lamp" in axes.get_title() for axes in grid.axes)
    strip = history_strip(catalogue, [1, 0, 1], count=2, target=2)
    assert [axes.get_title().split("\n")[0] for axes in strip.axes] == ["2", "3", "next"]
    tail = long_tail(catalogue)
    assert tail.axes[0].lines[0].get_ydata().tolist() == [3, 2, 2]
    lengths = history_lengths(catalogue)
    assert sum(bar.get_height() for bar in lengths.axes[0].patches) == 3
    for number, figure in enumerate((grid, strip, tail, lengths)):
        figure.savefig(tmp_path / f"{number}.png")
        plt.close(figure)


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        (["Kitchen > Mugs", "Home > Lamps", ""], ["Kitchen", "Home", ""]),
        (["Beauty, Nails", "Beauty, Hair, Wax", "Beauty"], ["Nails", "Hair", "Beauty"]),
        (["Toys", "Toys", "Toys"], ["Toys", "Toys", "Toys"]),
    ],
)
def test_groups_are_the_first_part_of_categories_that_tells_items_apart(categories, expected, tmp_path):
    items = pd.DataFrame({"item_id": list("abc"), "title": list("xyz"), "category": categories, "image": ""})
    interactions = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [0]})
    assert Catalogue.from_tables(items, interactions, tmp_path, "tiny").groups() == expected


def test_an_image_name_that_can_be_no_file_is_refused(tmp_path):
    items = pd.DataFrame({"item_id": ["a"], "title": ["A"], "image": ["images/" + "x" * 400]})
    seen = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    items.to_csv(tmp_path / "items.csv", index=False)
    seen.to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "images").mkdir()
    (problem,) = check_folder(tmp_path).problems
    assert "can't be a file's" in problem.problem


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [("title", [b"\xff\xfe", b"\xff"], "no UTF-8"), ("image", [1, 2], "image '1' is missing")],
)
def test_parquet_of_other_types_is_refused_or_read_as_text(tmp_path, column, values, message):
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "image": ["", ""]}).assign(**{column: values})
    items.to_parquet(tmp_path / "items.parquet")
    pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]}).to_csv(
        tmp_path / "interactions.csv", index=False
    )
    assert message in " ".join(problem.problem for problem in check_folder(tmp_path).problems)


def test_a_header_longer_than_the_csv_modules_limit_is_read(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title," + "x" * 200_000 + "\na,A,\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,a,1\n")
    assert check_folder(tmp_path).problems == []
