"""The readers of public layouts, the registry of names, and the published counts of the public sets."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trialign.catalogue import Catalogue, leave_one_out
from trialign.datasets import available, data_root, load
from trialign.datasets.amazon2023 import read_amazon2023
from trialign.datasets.movielens import read_movielens
from trialign.datasets.recbole import read_recbole
from trialign.datasets.registry import ENTRIES, find
from trialign.datasets.sequences import read_sequences

PROJECT = Path(__file__).resolve().parents[1]


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


# ---------------------------------------------------------------- MovieLens

MOVIES = (
    "movieId,title,genres\n"
    "1,Toy Story (1995),Adventure|Comedy\n"
    '20,"Juror, The (1996)",(no genres listed)\n'
    "3,Stalker,Drama\n"
)
RATINGS = "userId,movieId,rating,timestamp\n9,20,1.0,50\n9,3,5.0,50\n9,1,4.0,40\n2,20,3.0,7\n"


def test_movielens_as_published(tmp_path: Path) -> None:
    catalogue = read_movielens(write(tmp_path / "ml", movies__csv=MOVIES, ratings__csv=RATINGS))
    assert catalogue.titles == ["Toy Story (1995)", "Juror, The (1996)", "Stalker"]
    assert catalogue.items["category"].tolist() == ["Adventure | Comedy", "", "Drama"]
    assert catalogue.items["year"].tolist() == ["1995", "1996", ""]
    # at time 50 film 3 comes before film 20: by number, neither by text nor by line
    assert catalogue.interactions["item_id"].tolist() == ["1", "3", "20", "20"]
    with pytest.raises(ValueError, match="no film has a poster"):
        read_movielens(tmp_path / "ml", only_posters=True)


def test_movielens_with_posters_leaves_user_tags_out(tmp_path: Path) -> None:
    rich = (
        "movieId\ttitle\toverview\tdirector\tplot_keywords\tuser_tags\tposter\n"
        '20\tx\tA "quoted" trial\tB. Gibson\tlaw|jury\tSECRET\tposters/20.jpg\n'
        "1\tx\tToys\tJ. Lasseter\ttoy\tSECRET\t\n"
    )
    folder = write(tmp_path / "ml", movies__csv=MOVIES, ratings__csv=RATINGS, items__tsv=rich)
    write(folder / "posters", **{"20__jpg": "x"})
    catalogue = read_movielens(folder, only_posters=True)
    assert catalogue.items.iloc[0].to_dict() == {
        "item_id": "20",
        "title": "Juror, The (1996)",
        "description": 'A "quoted" trial',
        "category": "",
        "year": "1996",
        "director": "B. Gibson",
        "keywords": "law | jury",
        "image": "posters/20.jpg",
    }
    assert catalogue.interactions["user_id"].tolist() == ["9", "2"]
    assert not (read_movielens(folder).items == "SECRET").to_numpy().any()


def test_movielens_errors_name_file_and_line(tmp_path: Path) -> None:
    folder = write(
        tmp_path, movies__csv=MOVIES, ratings__csv="userId,movieId,rating,timestamp\n1,3,1,9\n1,77,1,5\n1,1,1,x\n"
    )
    with pytest.raises(ValueError, match=r"ratings\.csv, line 3: unknown item '77'") as caught:
        read_movielens(folder)
    assert "ratings.csv, line 4: timestamp is not a whole number" in str(caught.value)
    write(tmp_path, ratings__csv="user,movieId,timestamp\n1,1,1\n")
    with pytest.raises(ValueError, match=r"ratings\.csv: no column 'userId'"):
        read_movielens(folder)
    (folder / "movies.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"movies\.csv"):
        read_movielens(folder)


# ---------------------------------------------------------------- sequences


def test_sequences(tmp_path: Path) -> None:
    items = (
        "item_id\tasin\tkeyphrases\ttitle\tbrand\tcategories\tprice\tsales_rank\n"
        "1\tB1\tred nail polish\tOPI Red\tOPI\t'Beauty', 'Nails'\t3.0\t7\n"
        "2\tB2\tboar brush\t\t\t'Beauty', \"Women's\t\t\n"
        "3\tB3\t\t\t\tOffice, Pens\t\t\n"
    )
    folder = write(tmp_path / "set", items__tsv=items, sequential__txt="7 3 1\n\n5 2 2 3\n")
    catalogue = read_sequences(folder)
    assert catalogue.titles == ["OPI Red", "boar brush", "item 3"]
    assert catalogue.items["category"].tolist() == ["Beauty | Nails", "Beauty | Women's", "Office, Pens"]
    assert catalogue.text_columns == ["brand", "category", "price"]
    assert catalogue.interactions.to_numpy().tolist() == [
        ["7", "3", 0],
        ["7", "1", 1],
        ["5", "2", 0],
        ["5", "2", 1],
        ["5", "3", 2],
    ]


def test_sequence_errors_name_the_line(tmp_path: Path) -> None:
    folder = write(tmp_path, items__tsv="item_id\ttitle\n1\tone\n", sequential__txt="a 1\n\na 1\nb\nc 1 9\n")
    with pytest.raises(ValueError, match=r"sequential\.txt, line 3: user 'a' has a line already") as caught:
        read_sequences(folder)
    assert "line 4: user 'b' has no items" in str(caught.value)
    assert "line 5: unknown item '9'" in str(caught.value)
    write(tmp_path, items__tsv="item_id\ttitle\n1\tone\n1\ttwo\n", sequential__txt="a 1\n")
    with pytest.raises(ValueError, match=r"items\.tsv, line 3: item_id '1' was used before"):
        read_sequences(folder)
    (folder / "sequential.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"sequential\.txt"):
        read_sequences(folder)


# ---------------------------------------------------------------- RecBole


def test_recbole(tmp_path: Path) -> None:
    header = "item_id:token\tmovie_title:token_seq\tclass:token_seq\tscore:float\n"
    item = header + "01\tToy Story\tComedy Drama\t3.5\n2\t\tWar\t1\n"
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t10.9\n1\t01\t5\t10.2\n2\t2\t1\t3\n"
    folder = write(tmp_path / "ml", **{"x__item": item, "x__inter": inter})
    catalogue = read_recbole(folder)
    assert catalogue.name == "x"
    assert catalogue.items["item_id"].tolist() == ["01", "2"]
    assert catalogue.titles == ["Toy Story", "item 2"]
    assert catalogue.text_columns == ["class"]
    # 10.2 before 10.9 although both become 10
    assert catalogue.interactions.to_numpy().tolist() == [["1", "01", 10], ["1", "2", 10], ["2", "2", 3]]
    assert read_recbole(folder, title="class").titles == ["Comedy Drama", "War"]


@pytest.mark.parametrize(
    ("item", "inter", "message"),
    [
        ("item_id:token\tx:token\n1\ta\n", "user_id:token\titem_id:token\ttimestamp:float\n", "no title field"),
        ("item_id\ttitle:token\n1\ta\n", "", "field 'item_id' has no type"),
        (
            "item_id:token\ttitle:token\n1\ta\n",
            "user_id:token\titem_id:token\n1\t1\n",
            "x.inter, line 1: no field 'timestamp'",
        ),
        (
            "item_id:token\ttitle:token\n1\ta\n",
            "user_id:token\titem_id:token\ttimestamp:float\n1\t1\t2\n1\t1\tnan\n",
            "x.inter, line 3: timestamp is no time",
        ),
        (
            "item_id:token\ttitle:token\n1\ta\n",
            "user_id:token\titem_id:token\ttimestamp:float\n1\t1\t2\n1\t8\t1\n",
            "x.inter, line 3: unknown item '8'",
        ),
    ],
)
def test_recbole_errors(tmp_path: Path, item: str, inter: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recbole(write(tmp_path, **{"x__item": item, "x__inter": inter}))


# ---------------------------------------------------------------- Amazon Reviews 2023


def amazon_folder(folder: Path, reviews: list[Any], meta: list[Any], packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("All_Beauty", reviews), ("meta_All_Beauty", meta)):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in records)
        if packed:
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def review(user: str, item: str, time: int) -> dict[str, Any]:
    return {
        "rating": 5.0,
        "title": "t",
        "images": [],
        "asin": "V",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
    }


META = [
    {
        "parent_asin": "B1",
        "title": "Soap",
        "description": ["Gentle.", "  For\nhands. "],
        "features": ["Vegan"],
        "categories": ["Beauty", "Soap"],
        "store": "Acme",
        "price": None,
        "images": [],
    },
    {
        "parent_asin": "B2",
        "title": "",
        "categories": [],
        "main_category": "All Beauty",
        "price": "from 3.99",
        "store": None,
    },
    {"parent_asin": "B9", "title": "never reviewed", "price": 4.5},
]


@pytest.mark.parametrize("packed", [True, False])
def test_amazon2023(tmp_path: Path, packed: bool) -> None:
    reviews = [
        review("u", "B2", 30),
        review("u", "B1", 20),
        review("u", "B2", 10),  # the earlier of two reviews of one product counts
        review("v", "B1", 5),
        review("v", "B2", 6),
        review("v", "B3", 7),  # B3 has one review: below the 2-core
    ]
    folder = amazon_folder(tmp_path / "beauty", reviews, META, packed)
    write(folder / "images", **{"B1__jpg": "x"})
    catalogue = read_amazon2023(folder, k=2)
    assert catalogue.name == "All_Beauty"
    assert catalogue.items.to_dict("records") == [
        {
            "item_id": "B1",
            "title": "Soap",
            "description": "Gentle. For hands. Vegan",
            "brand": "Acme",
            "category": "Beauty | Soap",
            "image": "images/B1.jpg",
        },
        {"item_id": "B2", "title": "item B2", "description": "", "brand": "", "category": "All Beauty", "image": ""},
    ]
    assert catalogue.interactions.to_numpy().tolist() == [
        ["u", "B2", 10],
        ["u", "B1", 20],
        ["v", "B1", 5],
        ["v", "B2", 6],
    ]
    whole = read_amazon2023(folder, k=1)
    assert sorted(whole.titles) == ["Soap", "item B2", "item B3"]


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ([review("u", "B1", 1), "{broken"], "All_Beauty.jsonl.gz, line 2: not a JSON object"),
        ([review("u", "B1", 1), "", "[1]"], "All_Beauty.jsonl.gz, line 3: not a JSON object"),
        ([review("u", "B1", 1), {"user_id": "u", "timestamp": 3}], "line 2: parent_asin is missing or not of type str"),
        ([review("u", "B1", 1), review("u", "B1", "x")], "line 2: timestamp is missing or not of type int"),  # type: ignore[arg-type]
    ],
)
def test_amazon2023_errors_name_the_line(tmp_path: Path, reviews: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_amazon2023(amazon_folder(tmp_path, reviews, META), k=1)


def test_amazon2023_cut_off_and_missing_files(tmp_path: Path) -> None:
    folder = amazon_folder(tmp_path, [review(f"u{row}", "B1", row) for row in range(2000)], META)
    path = folder / "All_Beauty.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match="the compressed file ends early"):
        read_amazon2023(folder, k=1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="data get amazon-2023:All_Beauty"):
        read_amazon2023(folder)
    (folder / "meta_Books.jsonl").write_text("")
    with pytest.raises(ValueError, match="several categories"):
        read_amazon2023(folder)


# ---------------------------------------------------------------- registry


def test_load_recognises_every_layout(tmp_path: Path) -> None:
    write(tmp_path / "ml", movies__csv=MOVIES, ratings__csv=RATINGS)
    write(tmp_path / "seq", items__tsv="item_id\ttitle\n1\tone\n", sequential__txt="a 1\n")
    write(
        tmp_path / "rec",
        x__item="item_id:token\ttitle:token\n1\ta\n",
        x__inter="user_id:token\titem_id:token\ttimestamp:float\n1\t1\t2\n",
    )
    write(
        tmp_path / "own", items__tsv="item_id\ttitle\n1\tone\n", interactions__csv="user_id,item_id,timestamp\na,1,1\n"
    )
    counts = {name: load(tmp_path / name).n_items for name in ("ml", "seq", "rec", "own")}
    assert counts == {"ml": 3, "seq": 1, "rec": 1, "own": 1}
    users, items = ["u", "v", "w", "x", "y"], ["B1", "B2", "B3", "B4", "B5"]
    reviews = [review(user, item, 1) for user in users for item in items]
    assert load(amazon_folder(tmp_path / "amazon", reviews, META)).n_items == 5


def test_load_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor one of atelier, movielens-posters"):
        load("no-such-thing")
    with pytest.raises(ValueError, match="no known layout"):
        load(tmp_path)
    write(tmp_path / "half", items__csv="item_id,title\n1,x\n")
    with pytest.raises(ValueError, match="there is no interactions table"):
        load(tmp_path / "half")
    monkeypatch.setattr("trialign.datasets.registry._PROJECT", tmp_path / "nowhere")
    monkeypatch.delenv("TRIALIGN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="trialign data get movielens-small, or set TRIALIGN_DATA"):
        load("movielens-small", root=tmp_path)


def test_data_root_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    write(second / "ml-latest-small", movies__csv=MOVIES, ratings__csv=RATINGS)
    monkeypatch.setenv("TRIALIGN_DATA", f"{first}:{second}")
    assert data_root()[:2] == [first, second]
    assert data_root(second)[:2] == [second, first]
    assert PROJECT / "data" in data_root()
    assert find("movielens-small") == second / "ml-latest-small"
    table = available().set_index("name")
    assert list(table.index) == list(ENTRIES)
    assert table.loc["movielens-small", "folder"] == str(second / "ml-latest-small")
    monkeypatch.setenv("TRIALIGN_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="correct TRIALIGN_DATA"):
        data_root()


# ---------------------------------------------------------------- public data


def public(name: str) -> Catalogue:
    if find(name) is None:
        pytest.skip(f"no folder {ENTRIES[name].folder!r} in the data roots (set TRIALIGN_DATA)")
    return load(name)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [
        ("movielens-posters", 610, 3633, 90158),
        ("amazon-beauty", 22363, 12101, 198502),
        ("amazon-sports", 35598, 18357, 296337),
        ("amazon-office", 4905, 2420, 53258),
    ],
)
def test_published_counts(name: str, users: int, items: int, interactions: int) -> None:
    catalogue = public(name)
    assert (catalogue.n_users, catalogue.n_items, len(catalogue.interactions)) == (users, items, interactions)
    assert ENTRIES[name].items == items
    split = leave_one_out(catalogue)
    assert len(split.users) == users
    assert split.excluded == []
    assert (catalogue.items["title"].str.strip() != "").all()


@pytest.mark.realdata
def test_movielens_posters_agree_with_the_sequences_beside_them() -> None:
    catalogue = public("movielens-posters")
    reference = (catalogue.root / "sequential_5core.txt").read_text().splitlines()
    ours = catalogue.interactions.groupby("user_id", sort=False)["item_id"].agg(list)
    assert [[user, *items] for user, items in ours.items()] == [line.split() for line in reference]
    assert catalogue.open_image(0).mode == "RGB"


@pytest.mark.realdata
def test_movielens_small_is_its_own_core() -> None:
    if find("movielens-posters") is None:
        pytest.skip("no folder 'movielens_posters' in the data roots (set TRIALIGN_DATA)")
    core = read_movielens(find("movielens-posters")).k_core(5)
    assert (core.n_users, core.n_items, len(core.interactions)) == (610, ENTRIES["movielens-small"].items, 90274)


@pytest.mark.realdata
def test_beauty_titles_come_from_key_phrases_where_there_is_none() -> None:
    catalogue = public("amazon-beauty")
    table = pd.read_csv(catalogue.root / "items.tsv", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    untitled = table["title"] == ""
    assert untitled.sum() == 20
    assert catalogue.items.loc[untitled, "title"].tolist() == table.loc[untitled, "keyphrases"].tolist()
    assert public("amazon-office").items.set_index("item_id").loc["1786", "title"] == "item 1786"


def test_shipped_descriptions_are_whole() -> None:
    lines = (PROJECT / "data" / "movielens" / "descriptions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["movieId"] for record in records}) == len(records) == 3633
    assert all(2 <= len(record["interests"]) <= 4 and record["caption"].strip() for record in records)


@pytest.mark.realdata
def test_shipped_descriptions_cover_the_films_with_posters() -> None:
    lines = (PROJECT / "data" / "movielens" / "descriptions.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["movieId"] for line in lines} == set(public("movielens-posters").items["item_id"])
