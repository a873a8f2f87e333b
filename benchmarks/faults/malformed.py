"""Malformed catalogue folders, made from a small sound one by one to three faults each."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

Fault = Callable[[Path, random.Random], None]


def write_sound(folder: Path) -> None:
    """Write a catalogue of four items with images and three users."""
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (12, 12), (60 * number, 80, 120)).save(folder / "images" / f"{number}.png")
    items = [(f"i{n}", f"Title {n}", f'A text, with "quotes" {n}', f"images/{n}.png") for n in range(4)]
    pd.DataFrame(items, columns=["item_id", "title", "description", "image"]).to_csv(folder / "items.csv", index=False)
    seen = [(f"u{user}", f"i{(user + step) % 4}", 100 + step) for user in range(3) for step in range(4)]
    pd.DataFrame(seen, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "interactions.csv", index=False)


# --- text files


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", errors="surrogateescape").splitlines()


def _table(folder: Path, draw: random.Random) -> Path:
    found = sorted(folder.glob("i*.csv"))
    return draw.choice(found) if found else folder / "items.csv"


def _rewrite(path: Path, lines: list[str]) -> None:
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", errors="surrogateescape"))


def _cell(path: Path, draw: random.Random, values: list[str]) -> None:
    """Put a value into a random cell below the header."""
    lines = _lines(path)
    if len(lines) < 2:
        return
    row = draw.randrange(1, len(lines))
    cells = lines[row].split(",")
    cells[draw.randrange(len(cells))] = draw.choice(values)
    lines[row] = ",".join(cells)
    _rewrite(path, lines)


def encodings(folder: Path, draw: random.Random) -> None:
    """Write a table in another encoding, with a BOM, or with bytes that are no text."""
    path = _table(folder, draw)
    text = path.read_text("utf-8", errors="replace").replace("Title", "Tïtle")
    way = draw.choice(["latin-1", "utf-16", "utf-8-sig", "cp1252", "bytes", "surrogate"])
    if way == "bytes":
        path.write_bytes(text.encode()[:40] + draw.randbytes(6) + text.encode()[40:])
    elif way == "surrogate":
        path.write_bytes(text.encode().replace("ï".encode(), b"\xed\xa0\x80"))
    else:
        path.write_bytes(text.encode(way, errors="replace"))


def quotes(folder: Path, draw: random.Random) -> None:
    """Open quotes that never close, add delimiters, blank lines, other line ends."""
    path = _table(folder, draw)
    lines = _lines(path)
    row = draw.randrange(len(lines)) if lines else 0
    way = draw.choice(["open", "delimiter", "blank", "crlf", "cr", "tabs", "huge", "nul", "control"])
    if way == "crlf":
        path.write_bytes("\r\n".join(lines).encode("utf-8", errors="surrogateescape"))
    elif way == "cr":
        path.write_bytes("\r".join(lines).encode("utf-8", errors="surrogateescape"))
    elif lines:
        added = {
            "open": '"',
            "delimiter": ",x,y",
            "blank": "\n\n",
            "tabs": "\t",
            "nul": "\0",
            "control": "\x1b[31m\x07",
        }
        lines[row] += "," + "y" * 300_000 if way == "huge" else added[way]
        _rewrite(path, lines)


def ids(folder: Path, draw: random.Random) -> None:
    """Repeat, empty or exchange ids, or name unknown ones."""
    values = ["", "i0", "i1", " ", "nan", "NaN", "i999", "0", "..", "\u202eevil", "None", "i0 "]
    _cell(_table(folder, draw), draw, values)


def columns(folder: Path, draw: random.Random) -> None:
    """Drop, repeat, rename or reorder columns; remove the header."""
    path = _table(folder, draw)
    lines = _lines(path)
    if not lines:
        return
    header = lines[0].split(",")
    way = draw.choice(["drop", "repeat", "rename", "reverse", "none", "blank name"])
    if way == "drop":
        place = draw.randrange(len(header))
        lines = [",".join(cell for n, cell in enumerate(line.split(",")) if n != place) for line in lines]
    elif way == "none":
        lines = lines[1:]
    else:
        place = draw.randrange(len(header))
        renamed = {"repeat": header[0], "rename": "colour", "blank name": "", "reverse": header[place]}
        header[place] = renamed[way]
        lines[0] = ",".join(reversed(header) if way == "reverse" else header)
    _rewrite(path, lines)


def numbers(folder: Path, draw: random.Random) -> None:
    """Write times that are none."""
    values = [
        "nan",
        "inf",
        "-inf",
        "-5",
        "1e400",
        "99999999999999999999",
        "1.5",
        "2024-01-01",
        "",
        "0x10",
        "1_000",
        "٣",
    ]
    _cell(folder / "interactions.csv", draw, values)


def sequences(folder: Path, draw: random.Random) -> None:
    """Leave no interaction, one only, or the same many times."""
    path = folder / "interactions.csv"
    lines = _lines(path)
    way = draw.choice(["none", "one", "same", "unknown"])
    kept = {"none": lines[:1], "one": lines[:2], "same": lines[:2] * 1 + lines[1:2] * 50,
            "unknown": [*lines, "u9,i77,5"]}  # fmt: skip
    _rewrite(path, kept[way])


def files(folder: Path, draw: random.Random) -> None:
    """Empty, cut, remove, rename or double a table."""
    path = _table(folder, draw)
    content = path.read_bytes() if path.exists() else b""
    way = draw.choice(["empty", "cut", "missing", "as parquet", "two", "directory", "noise", "white"])
    if way == "empty":
        path.write_bytes(b"")
    elif way == "cut":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif way == "as parquet":
        path.rename(path.with_suffix(".parquet"))
    elif way == "two":
        path.with_suffix(".tsv").write_bytes(content)
    elif way == "noise":
        path.write_bytes(draw.randbytes(500))
    elif way == "white":
        path.write_bytes(b" \n \n\t\n")
    else:
        path.unlink(missing_ok=True)
        if way == "directory":
            path.mkdir()


def parquet(folder: Path, draw: random.Random) -> None:
    """Write a table as Parquet, with types that nobody expects, or damaged."""
    path = _table(folder, draw)
    try:
        frame = pd.read_csv(path, dtype=str)
    except (ValueError, OSError):
        return
    column = draw.choice(list(frame.columns) or ["item_id"])
    kinds = {
        "float": [float("nan")] + [1.5] * (len(frame) - 1),
        "list": [["a", "b"]] * len(frame),
        "struct": [{"x": 1}] * len(frame),
        "bytes": [b"\xff\xfe"] * len(frame),
        "time": pd.Timestamp("2024-01-01"),
        "bool": True,
        "none": None,
        "big": 2**62,
        "dictionary": pd.Categorical(["a"] * len(frame)),
    }
    frame[column] = kinds[draw.choice(list(kinds))] if len(frame) else None
    path.unlink()
    target = path.with_suffix(".parquet")
    frame.to_parquet(target, index=draw.random() < 0.3)
    if draw.random() < 0.3:
        content = target.read_bytes()
        target.write_bytes(content[: draw.randrange(len(content))])


# --- images


def _image(folder: Path, draw: random.Random) -> Path:
    return folder / "images" / f"{draw.randrange(4)}.png"


def _put(path: Path, content: bytes) -> None:
    """Write a file where a pipe, a link or a folder may be by now; to write into a pipe would wait for a reader."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


def _png(width: int, height: int, chunks: list[tuple[bytes, bytes]], data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def images(folder: Path, draw: random.Random) -> None:
    """Put an image of an unusual kind, or something that is no image, in place of one."""
    path, buffer = _image(folder, draw), io.BytesIO()
    way = draw.choice(["cmyk", "16 bit", "palette", "float", "animated", "alpha", "cut", "empty", "text", "svg", "one",
                       "gif bytes", "noise"])  # fmt: skip
    sound = Image.new("RGB", (9, 9), "teal")
    if way == "cmyk":
        sound.convert("CMYK").save(buffer, "JPEG")
    elif way == "16 bit":
        Image.new("I;16", (9, 9), 40_000).save(buffer, "PNG")
    elif way == "palette":
        sound.convert("P").save(buffer, "PNG", transparency=0)
    elif way == "float":
        Image.new("F", (9, 9), 0.5).save(buffer, "TIFF")
    elif way == "animated":
        sound.save(buffer, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")] * 5)
    elif way == "alpha":
        sound.convert("LA").save(buffer, "PNG")
    elif way == "one":
        Image.new("1", (1, 1)).save(buffer, "PNG")
    else:
        sound.save(buffer, "PNG")
        whole = buffer.getvalue()
        bad = {
            "cut": whole[: draw.randrange(len(whole))],
            "empty": b"",
            "text": b"not an image",
            "noise": draw.randbytes(300),
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "gif bytes": b"GIF89a" + draw.randbytes(40),
        }
        buffer = io.BytesIO(bad[way])
    _put(path, buffer.getvalue())


def bombs(folder: Path, draw: random.Random) -> None:
    """Put a huge image, or one that grows when it is unpacked, in place of one."""
    path = _image(folder, draw)
    side = draw.choice([20_000, 30_000, 60_000])
    zeros = zlib.compress(b"\0" * 50_000_000)
    way = draw.choice(["size", "data", "text", "profile", "line"])
    if way == "size":
        content = _png(side, side, [])
    elif way == "data":
        content = _png(9, 9, [], b"\0" * 30_000_000)
    elif way == "text":
        content = _png(9, 9, [(b"zTXt", b"Comment\0\0" + zeros)], b"\0" * 9 * 28)
    elif way == "profile":
        content = _png(9, 9, [(b"iCCP", b"icc\0\0" + zeros)], b"\0" * 9 * 28)
    else:
        content = _png(2**31 - 1, 1, [])
    _put(path, content)


def places(folder: Path, draw: random.Random) -> None:
    """Let an image be a link, a folder, a pipe, or a name that leads out of the folder."""
    path = _image(folder, draw)
    way = draw.choice(["link out", "loop", "directory", "fifo", "broken", "name"])
    if way == "name":
        names = [
            "../../etc/passwd", "/etc/passwd", "images/../../x.png", "images/\0.png", "images/" + "x" * 400, ".",
            "images", "C:\\x.png", "http://127.0.0.1:1/x.png", "images//./0.png", "~/x.png", "%2e%2e/x",
        ]  # fmt: skip
        _cell(folder / "items.csv", draw, names)
        return
    path.unlink(missing_ok=True)
    if way == "link out":
        path.symlink_to("/etc/passwd")
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "broken":
        path.symlink_to("nowhere.png")
    elif way == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)


#: Families of faults by name.
FAMILIES: dict[str, Fault] = {
    "encodings and BOM": encodings,
    "quotes, delimiters, control characters": quotes,
    "ids: repeated, missing, unknown": ids,
    "columns: missing, repeated, renamed": columns,
    "times: NaN, infinite, negative, huge": numbers,
    "interactions: none, one, unknown items": sequences,
    "tables: 0 bytes, cut, missing, twice": files,
    "Parquet with other types, damaged": parquet,
    "images: CMYK, 16 bit, animated, cut, none": images,
    "images: 30,000 px a side, bombs": bombs,
    "images: links, pipes, names with ..": places,
}
