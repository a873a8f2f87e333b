"""Downloads against a real HTTP server on this machine: whole, bounded, resumable, safe to unpack."""

import gzip
import io
import json
import stat
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from trialign.datasets import load
from trialign.datasets.amazon2023 import get_images, read_amazon2023
from trialign.datasets.download import extract, get
from trialign.datasets.thumbnails import download_images, file_stem
from trialign.datasets.transfer import fetch


def picture(kind: str = "JPEG", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def archive(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return buffer.getvalue()


def movielens_zip() -> bytes:
    pairs = [(user, film) for user in range(1, 6) for film in range(1, 6)]
    ratings = "".join(f"{user},{film},4.0,{film}\n" for user, film in pairs)
    films = "".join(f"{film},Film {film} (1999),Drama\n" for film in range(1, 6))
    return archive(
        {
            "ml-latest-small/movies.csv": "movieId,title,genres\n" + films,
            "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n" + ratings,
            "ml-latest-small/README.txt": "terms",
        }
    )


# ---------------------------------------------------------------- data sets


def test_movielens_small_is_downloaded_once_and_loads_by_name(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    httpserver.expect_ordered_request("/x/ml-latest-small.zip").respond_with_data(movielens_zip())
    folder = get("movielens-small", tmp_path, base_url=httpserver.url_for("/x/"), progress=False)
    assert folder == tmp_path / "ml-latest-small"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-latest-small"]
    source = json.loads((folder / "source.json").read_text())["files"][0]
    assert source["sha256"] in capsys.readouterr().out
    assert len(source["sha256"]) == 64
    # ordered: a second request would be answered with an error
    assert get("movielens-small", tmp_path, base_url=httpserver.url_for("/x/"), progress=False) == folder
    monkeypatch.setenv("TRIALIGN_DATA", str(tmp_path))
    assert load("movielens-small").n_items == 5
    httpserver.check()


def test_a_wrong_hash_is_refused_and_leaves_nothing(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/ml-latest-small.zip").respond_with_data(movielens_zip())
    with pytest.raises(ValueError, match="hash"):
        get("movielens-small", tmp_path, httpserver.url_for("/"), known_hash="sha256:" + "0" * 64, progress=False)
    assert list(tmp_path.rglob("*.csv")) == []


def test_an_archive_of_something_else_is_refused(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/ml-latest-small.zip").respond_with_data(b"<html>not here</html>")
    with pytest.raises(ValueError, match="not a ZIP archive"):
        get("movielens-small", tmp_path, httpserver.url_for("/"), progress=False)
    # and the next try asks the server again, rather than to trip over the bad file for ever
    httpserver.clear()
    httpserver.expect_request("/ml-latest-small.zip").respond_with_data(movielens_zip())
    assert (get("movielens-small", tmp_path, httpserver.url_for("/"), progress=False) / "ratings.csv").is_file()


def test_amazon_2023_by_category_with_images(httpserver: HTTPServer, tmp_path: Path) -> None:
    users, items = [f"u{row}" for row in range(5)], [f"B{row}" for row in range(5)]
    reviews = [
        {"user_id": user, "parent_asin": item, "timestamp": 1, "rating": 5.0} for user in users for item in items
    ]
    meta = [
        {
            "parent_asin": item,
            "title": f"Thing {item}",
            "images": [
                {"variant": "PT01", "large": httpserver.url_for("/wrong")},
                {"variant": "MAIN", "large": None, "hi_res": httpserver.url_for(f"/img/{item}"), "thumb": "t"},
            ],
        }
        for item in items[:4]
    ]
    for path, records in (("review_categories/Toys", reviews), ("meta_categories/meta_Toys", meta)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        # Servers label .gz files like this; they must arrive packed all the same.
        httpserver.expect_request(f"/{path}.jsonl.gz").respond_with_data(
            gzip.compress(lines.encode()), headers={"Content-Encoding": "gzip"}
        )
    for item in items[:3]:
        httpserver.expect_request(f"/img/{item}").respond_with_data(picture())
    httpserver.expect_request("/img/B3").respond_with_data("gone", status=404)
    folder = get("amazon-2023:Toys", tmp_path, httpserver.url_for("/"), progress=False)
    assert folder == tmp_path / "amazon_2023_Toys"
    assert len(json.loads((folder / "source.json").read_text())["files"]) == 2
    assert (read_amazon2023(folder).items["image"] == "").all()
    table = get_images(folder, progress=False).set_index("item_id")
    assert table["status"].to_dict() == {"B0": "made", "B1": "made", "B2": "made", "B3": "failed"}
    assert "404" in table.loc["B3", "error"]
    catalogue = load(folder)
    images = dict(zip(catalogue.items["item_id"], catalogue.items["image"]))
    assert images == {"B0": "images/B0.jpg", "B1": "images/B1.jpg", "B2": "images/B2.jpg", "B3": "", "B4": ""}
    assert catalogue.open_image(0).size == (8, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movielens-posters", "can't be had by link"),
        ("imagenet", "can't be downloaded; fix: give one of movielens-small"),
        ("amazon-2023:../x", "is no category name"),
    ],
)
def test_names_that_cannot_be_downloaded(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get(name, tmp_path, "http://127.0.0.1:9/")


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("member", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, member: str) -> None:
    (tmp_path / "x.zip").write_bytes(archive({"good.txt": "ok", member: "evil"}))
    with pytest.raises(ValueError, match="would leave the folder"):
        extract(tmp_path / "x.zip", tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.zip"]


def test_links_and_bombs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="would leave the folder"):
        extract(tmp_path / "link.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(200_000))
    with pytest.raises(ValueError, match="unpacks to 200000 bytes, more than 1000"):
        extract(tmp_path / "bomb.zip", tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out").exists()
    assert (extract(tmp_path / "bomb.zip", tmp_path / "out") / "zeros").stat().st_size == 200_000


# ---------------------------------------------------------------- single files and images


def test_fetch_tries_again_after_a_transient_answer_only(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_ordered_request("/busy").respond_with_data("later", status=503)
    httpserver.expect_ordered_request("/busy").respond_with_data("slow down", status=429)
    httpserver.expect_ordered_request("/busy").respond_with_data("content")
    with httpx.Client() as client:
        part = fetch(client, httpserver.url_for("/busy"), tmp_path / "file", 100, wait=0.001)
        assert part == tmp_path / "file.part"
        assert part.read_text() == "content"
        httpserver.clear()
        httpserver.expect_ordered_request("/gone").respond_with_data("no", status=404)
        with pytest.raises(httpx.HTTPStatusError):  # asked once: the ordered second request would be a 500
            fetch(client, httpserver.url_for("/gone"), tmp_path / "other", 100, wait=0.001)
        assert len(httpserver.log) == 1


def test_fetch_is_bounded_with_and_without_an_announced_length(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/announced").respond_with_data(bytes(500))
    httpserver.expect_request("/stream").respond_with_handler(lambda _: Response(iter([bytes(60)] * 10)))
    with httpx.Client() as client:
        for address in ("/announced", "/stream"):
            with pytest.raises(ValueError, match="more than 100 bytes"):
                fetch(client, httpserver.url_for(address), tmp_path / "file", 100)
        with pytest.raises(ValueError, match="no http address"):
            fetch(client, "file:///etc/passwd", tmp_path / "file", 100)


@pytest.mark.parametrize(("mark", "expected"), [('"v1"', "bytes=4-"), ('"v2"', "bytes=4-"), (None, None)])
def test_a_cut_off_download_is_continued_if_the_file_is_the_same(
    httpserver: HTTPServer, tmp_path: Path, mark: str | None, expected: str | None
) -> None:
    ranges: list[str | None] = []

    def answer(request: Request) -> Response:
        ranges.append(request.headers.get("range"))
        same = request.headers.get("if-range") == '"v1"' == mark
        response = Response(b"456789" if same else b"new content", status=206 if same else 200)
        if mark:
            response.headers["etag"] = mark
        return response

    (tmp_path / "file.part").write_bytes(b"0123")
    if mark:
        (tmp_path / "file.part.version").write_text('"v1"')  # of the download that was cut off
    httpserver.expect_request("/file").respond_with_handler(answer)
    with httpx.Client() as client:
        part = fetch(client, httpserver.url_for("/file"), tmp_path / "file", 100)
    assert ranges == [expected]
    assert part.read_bytes() == (b"0123456789" if mark == '"v1"' else b"new content")
    assert [path.name for path in tmp_path.iterdir()] == ["file.part"]


def test_a_dead_connection_is_continued_within_one_call(httpserver: HTTPServer, tmp_path: Path) -> None:
    whole = bytes(range(200)) * 10

    def answer(request: Request) -> Response:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        sent = whole[start : start + 1500]  # less than announced: the connection dies
        headers = {"etag": '"v1"', "content-length": str(len(whole) - start)}
        return Response(iter([sent]), status=206 if start else 200, headers=headers)

    httpserver.expect_request("/file").respond_with_handler(answer)
    with httpx.Client() as client:
        part = fetch(client, httpserver.url_for("/file"), tmp_path / "file", 10_000, wait=0.001)
    assert part.read_bytes() == whole
    assert len(httpserver.log) == 2


def test_amazon_download_goes_on_where_it_was(httpserver: HTTPServer, tmp_path: Path) -> None:
    folder = tmp_path / "amazon_2023_Toys"
    folder.mkdir()
    packed = gzip.compress(b"{}\n" * 50)
    (folder / "Toys.jsonl.gz.part").write_bytes(packed[:10])
    (folder / "Toys.jsonl.gz.part.version").write_text('"a"')
    headers = {"Range": "bytes=10-", "If-Range": '"a"'}
    httpserver.expect_request("/review_categories/Toys.jsonl.gz", headers=headers).respond_with_data(
        packed[10:], status=206
    )
    httpserver.expect_request("/meta_categories/meta_Toys.jsonl.gz").respond_with_data(packed)
    get("amazon-2023:Toys", tmp_path, httpserver.url_for("/"), progress=False)
    assert (folder / "Toys.jsonl.gz").read_bytes() == packed
    assert sorted(path.name for path in folder.iterdir()) == ["Toys.jsonl.gz", "meta_Toys.jsonl.gz", "source.json"]


def test_images_are_resumed_and_failures_are_listed(httpserver: HTTPServer, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.path)
        bodies = {"/ok": picture(), "/png": picture("PNG"), "/cut": picture(size=(64, 64))[:-200], "/page": b"<html>"}
        return Response(bodies.get(request.path, b""), status=200 if request.path in bodies else 500)

    for path in ("/ok", "/png", "/cut", "/page", "/down"):
        httpserver.expect_request(path).respond_with_handler(answer)
    (tmp_path / "here.jpg").write_bytes(picture())
    (tmp_path / "ok.part").write_bytes(b"of a run that was killed")
    items = {name: httpserver.url_for(f"/{name}") for name in ("ok", "png", "cut", "page", "down", "here")}
    items |= {"a/../b": httpserver.url_for("/ok"), "odd": "ftp://example.org/x", "bad": "http://[::1"}
    table = download_images(items, tmp_path, workers=4, attempts=2, wait=0.001, progress=False).set_index("item_id")
    assert list(table.index) == list(items)
    assert table["status"].to_dict() == {
        "ok": "made",
        "png": "made",
        "cut": "failed",
        "page": "failed",
        "down": "failed",
        "here": "kept",
        "a/../b": "made",
        "odd": "failed",
        "bad": "failed",
    }
    assert asked.count("/down") == 2
    assert "/here" not in asked
    assert table.loc["png", "file"] == "png.png"
    assert table.loc["a/../b", "file"] == f"{file_stem('a/../b')}.jpg"
    assert (table.loc[table["status"] == "failed", "error"] != "").all()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg", ".jpg", ".jpg", ".png"]
    asked.clear()
    again = download_images(items, tmp_path, attempts=1, wait=0.001, progress=False)
    assert (again["status"] == "kept").sum() == 4
    assert sorted(set(asked)) == ["/cut", "/down", "/page"]


def test_an_image_over_the_limit_fails(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    httpserver.expect_request("/ok").respond_with_data(picture())
    table = download_images({"a": httpserver.url_for("/ok")}, tmp_path, max_bytes=50, progress=False)
    assert "more than 50 bytes" in table.loc[0, "error"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    table = download_images({"a": httpserver.url_for("/ok")}, tmp_path, progress=False)
    assert "huge" in table.loc[0, "error"]
    assert list(tmp_path.iterdir()) == []
