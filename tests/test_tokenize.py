"""`trialign tokenize`: folders that are whole or not there, embeddings computed once, new items, files of others."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from trialign import tokenize as work
from trialign.cli import app
from trialign.datasets import load
from trialign.decode.trie import Trie
from trialign.embed.cache import EmbeddingCache, is_joint
from trialign.embed.files import EmbeddedItems, read_embeddings
from trialign.embed.fusion import FusedEmbedder
from trialign.sids import QUANTIZERS, JointResidualKMeans, PerModality, SemanticIds, collisions, load_quantizer
from trialign.sids.build import build_quantizer
from trialign.sids.tokenization import Tokenization, check_target

KMEANS = ("--quantizer", "ResidualKMeans", "--codebook-sizes", "[16, 16, 16]")


class Words:
    """Embed each text by the hashes of its words, and count the texts that were read."""

    name = "words"

    def __init__(self):
        self.read = 0

    def embed(self, texts, images, *, progress=True):
        self.read += len(texts)
        rows = np.zeros((len(texts), 48), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, zlib.crc32(word.encode()) % 48] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)


@pytest.fixture
def words(monkeypatch):
    embedder = Words()
    monkeypatch.setattr(work, "make_embedder", lambda name: embedder)
    return embedder


@pytest.fixture(scope="module")
def atelier():
    return load("atelier")


@pytest.fixture
def vectors(tmp_path):
    """A matrix and ids beside it: 60 items around 12 centres, so that some collide."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(12, 6))[generator.integers(12, size=60)] + generator.normal(size=(60, 6)) * 0.05
    np.save(tmp_path / "vectors.npy", matrix.astype(np.float32))
    (tmp_path / "item_ids.txt").write_text("\n".join(f"item {row}" for row in range(60)) + "\n")
    return tmp_path / "vectors.npy"


def call(*arguments):
    return CliRunner().invoke(app, ["tokenize", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})


def made(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.stderr


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_distinct_and_free_of_prefixes(sids):
    Trie.build(sids.codes)  # refuses prefixes
    assert len(np.unique(sids.codes, axis=0)) == len(sids)


def test_the_shipped_catalogue_from_end_to_end(tmp_path, words):
    out, index = tmp_path / "tok", tmp_path / "atelier.index.json"
    output = made("atelier", "--out", out, *KMEANS, "--index", index)
    assert "467 items in 3 levels" in output
    assert "items that share a SID: " in output
    assert str(out) in output
    assert sorted(path.name for path in out.iterdir()) == [
        "embeddings.safetensors", "manifest.json", "quantizer", "sids",
    ]  # fmt: skip
    sids, quantizer = SemanticIds.load(out / "sids"), load_quantizer(out / "quantizer")
    assert sids.item_ids == load("atelier").items["item_id"].tolist()
    assert_distinct_and_free_of_prefixes(sids)
    embedded = read_embeddings(out / "embeddings.safetensors")
    assert embedded.item_ids == sids.item_ids
    np.testing.assert_array_equal(quantizer.encode(embedded.embeddings), sids.codes[:, :3])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["inputs"]["catalogue"] == "atelier"
    assert manifest["quantizer"]["parameters"]["codebook_sizes"] == [16, 16, 16]
    assert manifest["metrics"]["colliding_after"] == 0
    assert [level["level"] for level in manifest["metrics"]["levels"]] == ["1", "2", "3", "suffix"]

    made("atelier", "--from-index", index, "--out", tmp_path / "imported")
    imported = SemanticIds.load(tmp_path / "imported" / "sids")
    assert (imported.item_ids, imported.levels) == (sids.item_ids, sids.levels)
    np.testing.assert_array_equal(imported.codes, sids.codes)


def test_equal_calls_write_equal_files_but_for_the_manifest(tmp_path, vectors):
    for name in ("a", "b"):
        made("--embeddings", vectors, "--out", tmp_path / name, *KMEANS, "--seed", 3)
    first, second = (contents(tmp_path / name) for name in ("a", "b"))
    assert {path.name for path in first if first[path] != second[path]} <= {"manifest.json"}


def test_another_quantizer_embeds_nothing_again_and_other_text_does(tmp_path, words, atelier):
    made("atelier", "--out", tmp_path / "tok", *KMEANS)
    assert words.read == atelier.n_items
    made("atelier", "--out", tmp_path / "tok", "--quantizer", "ProductQuantizer", "--codebook-sizes", "[8, 8]")
    assert words.read == atelier.n_items
    assert load_quantizer(tmp_path / "tok" / "quantizer").codebook_sizes == [8, 8]
    made("atelier", "--out", tmp_path / "tok", *KMEANS, "--text", "title,brand")
    assert words.read > atelier.n_items


def test_a_call_stopped_between_embedding_and_fitting_goes_on_from_there(tmp_path, words, atelier, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    out = tmp_path / "tok"
    with monkeypatch.context() as patch:
        patch.setattr(Tokenization, "fit", stop)
        result = call("atelier", "--out", out, *KMEANS)
    assert result.exit_code == 130
    assert [path.name for path in out.iterdir()] == [".embedded"]
    made("atelier", "--out", out, *KMEANS)
    assert words.read == atelier.n_items
    assert not (out / ".embedded").exists()


@pytest.mark.parametrize("broken", ["SemanticIds.save", "versions"])
def test_a_call_that_fails_while_writing_leaves_the_old_folder_whole(tmp_path, vectors, monkeypatch, broken):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    out = tmp_path / "tok"
    made("--embeddings", vectors, "--out", out, *KMEANS)
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(f"trialign.sids.tokenization.{broken}", fail)
        assert "the disk is full; make room or name another folder" in refused(
            "--embeddings", vectors, "--out", out, *KMEANS, "--seed", 1
        )
    assert contents(out) == before
    made("--embeddings", vectors, "--out", out, *KMEANS, "--seed", 1)
    assert contents(out) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["item_ids.txt", "tok", "vectors.npy"]


def test_what_a_call_killed_between_two_renames_left_is_put_back(tmp_path, vectors):
    made("--embeddings", vectors, "--out", tmp_path / "tok", *KMEANS)
    before = contents(tmp_path / "tok")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / "tok").rename(tmp_path / f".tok.{child.pid}.old")
    (tmp_path / f".tok.{child.pid}").mkdir()
    (tmp_path / f".other.{child.pid}").mkdir()
    check_target(tmp_path / "tok")
    assert contents(tmp_path / "tok") == before
    assert sorted(path.name for path in tmp_path.glob(".*")) == [f".other.{child.pid}"]


def test_new_items_are_told_apart_and_old_ones_keep_their_sids(tmp_path, words, atelier):
    rows = np.random.default_rng(1).permutation(atelier.n_items)
    part, whole = tmp_path / "part", tmp_path / "whole"
    atelier.select(rows[:300]).save(part)
    later = atelier.select(rows[20:])  # 20 items left the shop
    later.items.loc[0, "title"] = "An old item under another title"
    later.save(whole)
    made(part, "--out", tmp_path / "tok", *KMEANS, "--text", "title,category")
    assert words.read <= 300
    read = words.read
    output = made(whole, "--out", tmp_path / "new", "--like", tmp_path / "tok")
    assert f"items added to the SIDs first made: {atelier.n_items - 300}" in output
    assert words.read - read <= atelier.n_items - 300
    old, new = SemanticIds.load(tmp_path / "tok" / "sids"), SemanticIds.load(tmp_path / "new" / "sids")
    assert [new.codes_of(item_id) for item_id in old.item_ids] == [old.codes_of(item_id) for item_id in old.item_ids]
    assert new.item_ids[: later.n_items] == later.items["item_id"].tolist()
    assert set(new.item_ids[later.n_items :]) == set(old.item_ids) - set(later.items["item_id"])
    assert_distinct_and_free_of_prefixes(new)
    assert contents(tmp_path / "tok" / "quantizer") == contents(tmp_path / "new" / "quantizer")
    embedded = read_embeddings(tmp_path / "new" / "embeddings.safetensors")
    assert embedded.item_ids == new.item_ids

    made(whole, "--out", tmp_path / "tok", "--like", tmp_path / "tok")
    np.testing.assert_array_equal(SemanticIds.load(tmp_path / "tok" / "sids").codes, new.codes)
    made(whole, "--out", tmp_path / "tok", "--like", tmp_path / "tok")  # nothing is new
    np.testing.assert_array_equal(SemanticIds.load(tmp_path / "tok" / "sids").codes, new.codes)


def test_like_refuses_what_it_cannot_continue(tmp_path, words, vectors, atelier, monkeypatch):
    made("--embeddings", vectors, "--out", tmp_path / "tok", *KMEANS)
    out = ("--out", tmp_path / "new")
    assert "was made from embeddings; give the new items as their embeddings" in refused(
        "atelier", *out, "--like", tmp_path / "tok"
    )
    assert "holds no manifest.json" in refused("atelier", *out, "--like", tmp_path)
    assert "--like and --quantizer can't be given together" in refused(
        "atelier", *out, "--like", tmp_path / "tok", *KMEANS
    )
    with monkeypatch.context() as patch:
        patch.setattr(work, "is_joint", lambda model, images: True)
        made("atelier", "--out", tmp_path / "joint", *KMEANS)
        assert "new items would lie in another space" in refused(
            with_a_new_item(atelier, tmp_path), *out, "--like", tmp_path / "joint"
        )
    assert words.read == atelier.n_items
    sids = tmp_path / "tok" / "sids" / "semantic_ids.json"
    sids.write_text(sids.read_text() + " ")
    assert "output sids/semantic_ids.json was altered; tokenize again" in refused(
        "--embeddings", vectors, *out, "--like", tmp_path / "tok"
    )


def with_a_new_item(catalogue, folder):
    items = pd.concat([catalogue.items, catalogue.items.head(1).assign(item_id="new")], ignore_index=True)
    type(catalogue)(items, catalogue.interactions, catalogue.root, "grown").save(folder / "grown")
    return folder / "grown"


def test_an_item_embedded_with_others_in_view_is_joint():
    assert is_joint(FusedEmbedder(), [None, "picture.jpg"])
    assert not is_joint(FusedEmbedder(), [None, None])
    assert not is_joint(Words(), [None, "picture.jpg"])


@pytest.mark.parametrize("method", ["suffix", "reassign", "none"])
def test_embeddings_made_elsewhere_with_each_way_to_resolve_collisions(tmp_path, vectors, method):
    out = tmp_path / "tok"
    output = made("--embeddings", vectors, "--out", out, *KMEANS[:2], "--codebook-sizes", "[4, 4, 4]",
                  "--collisions", method)  # fmt: skip
    sids = SemanticIds.load(out / "sids")
    assert sids.item_ids == [f"item {row}" for row in range(60)]
    assert sids.depth == (4 if method == "suffix" else 3)
    shared = len(sids) - len(np.unique(sids.codes, axis=0))
    assert (shared > 0) == (method == "none")
    assert ("0 after (0.0%)" in output) == (method != "none")
    more = np.concatenate([np.load(vectors), np.load(vectors)[:1] + 0.01])
    np.save(tmp_path / "more.npy", more)
    (tmp_path / "more.json").write_text(json.dumps([*sids.item_ids, 'neu "ü"']))
    made("--embeddings", tmp_path / "more.npy", "--item-ids", tmp_path / "more.json", "--out", out, "--like", out)
    grown = SemanticIds.load(out / "sids")
    assert [grown.codes_of(item_id) for item_id in sids.item_ids] == [sids.codes_of(i) for i in sids.item_ids]
    if method != "none":
        assert_distinct_and_free_of_prefixes(grown)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_matrix_in_safetensors_is_read_whatever_its_precision(tmp_path, dtype):
    matrix = torch.tensor([[0.5, 1.0], [2.0, -1.5]], dtype=dtype)
    save_file({"rows": matrix, "counts": torch.tensor([1, 2])}, tmp_path / "x.safetensors", {"item_ids": '["a", "b"]'})
    read = read_embeddings(tmp_path / "x.safetensors")
    assert (read.item_ids, read.embeddings.dtype) == (["a", "b"], np.float32)
    np.testing.assert_array_equal(read.embeddings, matrix.float().numpy())
    read.save(tmp_path / "again.safetensors")
    assert read_embeddings(tmp_path / "again.safetensors").item_ids == ["a", "b"]


def test_item_ids_are_read_from_tables_json_and_text(tmp_path):
    ids = ["1", 'qu"ote', "ä,b"]
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    pd.DataFrame({"title": ["t"] * 3, "item_id": ids}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"anything": ids}).to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "c.json").write_text(json.dumps([1, *ids[1:]]))
    (tmp_path / "d.txt").write_text("\r\n".join(ids) + "\r\n")
    for name in ("a.parquet", "b.csv", "c.json", "d.txt"):
        assert read_embeddings(tmp_path / "x.npy", tmp_path / name).item_ids == ids, name


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ('["a"]', r"item_ids\.json has 1 item ids, .*vectors\.npy has 60 rows; give one id a row"),
        ('["a", "b", "a"]', r"item_ids\.json, row 3: item id 'a' is in row 1 too"),
        ('["a", ""]', r"item_ids\.json, row 2: the item id is empty"),
        ('{"a": 1}', "must be a JSON list of strings"),
        ("[", "not readable as JSON"),
    ],
)
def test_item_ids_that_do_not_fit_are_told_with_file_and_row(vectors, ids, message):
    (vectors.parent / "item_ids.txt").unlink()
    (vectors.parent / "item_ids.json").write_text(ids)
    with pytest.raises(ValueError, match=message):
        read_embeddings(vectors)


def test_embedding_files_that_cannot_be_used_are_told(tmp_path, vectors):
    def message(path, error=ValueError):
        with pytest.raises(error) as raised:
            read_embeddings(path)
        return str(raised.value)

    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "objects.npy is not a readable .npy file of numbers" in message(tmp_path / "objects.npy")
    matrix = np.ones((60, 2), np.float32)
    matrix[7, 1] = np.nan
    np.save(tmp_path / "nan.npy", matrix)
    assert "nan.npy: 1 embeddings hold NaN or infinity in float32, the first in row 7" in message(tmp_path / "nan.npy")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00")
    assert "cut.safetensors is not a readable safetensors file" in message(tmp_path / "cut.safetensors")
    save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 3)}, tmp_path / "two.safetensors")
    assert "exactly one matrix of floats" in message(tmp_path / "two.safetensors")
    (tmp_path / "x.pt").touch()
    assert "unknown ending '.pt'" in message(tmp_path / "x.pt")
    assert "is missing" in message(tmp_path / "none.npy", FileNotFoundError)
    (tmp_path / "item_ids.json").write_text("[]")
    assert "item_ids.json and item_ids.txt both exist" in message(vectors)
    for path in tmp_path.glob("item_ids.*"):
        path.unlink()
    assert "does not say whose rows it holds" in message(vectors, FileNotFoundError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to tokenize: name a catalogue, or give --embeddings FILE or --from-index FILE"),
        (["nowhere"], "nowhere: neither a folder nor one of atelier"),
        (["atelier", "--embeddings", "x.npy"], "--embeddings and CATALOGUE can't be given together"),
        (["--from-index", "x.json", "--seed", 0], "--from-index and --seed can't be given together"),
        (["atelier", "--item-ids", "x.txt"], "--item-ids names the rows of --embeddings"),
        (["atelier", "--quantizer", "KMeans"], "no quantizer 'KMeans'; there are BalancedResidualKMeans, "),
        (["atelier", "-p", "epoch", "3"], "RQVAE has no parameter 'epoch'; there are codebook_sizes, latent_dim"),
        (["atelier", "-p", "epochs", "many"], "epochs = 'many' is not a value of type int"),
        (["atelier", "-p", "codebook_sizes", "[2]"], "-p codebook_sizes: give it as --codebook-sizes"),
        (["atelier", "--codebook-sizes", "256"], "--codebook-sizes 256: give a list of whole numbers"),
        (["atelier", "--codebook-sizes", "[2.5]"], "--codebook-sizes [2.5]: give a list of whole numbers"),
        (["atelier", "--collisions", "hope"], "no collision method 'hope'; there are suffix, reassign, none"),
        (
            ["atelier", "--text", "title,colour"],
            "no text column 'colour'; there are title, description, brand, ",
        ),
        (["atelier", "--embedder", "psychic"], "unknown embedder 'psychic'"),
        (["--from-index", "none.json"], "none.json is missing"),
    ],
)
def test_mistakes_are_told_in_plain_words(tmp_path, arguments, message):
    assert message in refused(*arguments, "--out", tmp_path / "tok")
    assert not (tmp_path / "tok").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path, vectors):
    assert "holds item_ids.txt, which tokenizing would remove" in refused(
        "--embeddings", vectors, "--out", tmp_path, *KMEANS
    )
    assert "is a file; name a folder" in refused("--embeddings", vectors, "--out", vectors, *KMEANS)
    made("--embeddings", vectors, "--out", tmp_path / "tok", "--index", tmp_path / "tok" / "index.json", *KMEANS)
    made("--embeddings", vectors, "--out", tmp_path / "tok", "--index", tmp_path / "tok" / "index.json", *KMEANS)
    (tmp_path / "tok" / "notes.txt").touch()
    assert "holds notes.txt" in refused("--embeddings", vectors, "--out", tmp_path / "tok", *KMEANS)


def test_an_index_of_other_items_is_refused(tmp_path):
    (tmp_path / "index.json").write_text('{"A00001": [1, 2], "x": [3, 4]}')
    message = refused("atelier", "--from-index", tmp_path / "index.json", "--out", tmp_path / "tok")
    assert "index.json: 466 items are in the catalogue and not in the file, e.g. 'A00002'" in message


def test_the_text_columns_that_are_asked_for_make_the_text(atelier):
    first = atelier.items.iloc[0]
    assert work.catalogue_texts(atelier, ["brand", "title"])[0] == f"{first['title']}\nbrand: {first['brand']}"
    assert work.catalogue_texts(atelier, ["category", "brand"])[0] == (
        f"category: {first['category']}\nbrand: {first['brand']}"
    )
    assert work.catalogue_texts(atelier, ["description"])[0] == " ".join(first["description"].split()[:120])


def test_a_cache_gives_back_rows_by_text_and_computes_a_cut_off_file_again(tmp_path):
    embedder, cache = Words(), EmbeddingCache(tmp_path)
    first, _ = cache.embed(embedder, ["red mug", "blue hat", "red mug"], [None] * 3)
    assert embedder.read == 2
    second, _ = cache.embed(embedder, ["blue hat", "lamp", "red mug"], [None] * 3)
    assert embedder.read == 3
    np.testing.assert_array_equal(second[[2, 0]], first[:2])
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    third, _ = cache.embed(embedder, ["red mug"], [None])
    assert embedder.read == 4
    np.testing.assert_array_equal(third, first[:1])


def test_every_quantizer_can_be_built_by_name():
    for name in sorted(set(QUANTIZERS) - {"PerModality"}):
        built = build_quantizer(name, {"codebook_sizes": "[4, 4]"}, seed=5)
        assert (type(built).__name__, list(built.codebook_sizes), built.seed) == (name, [4, 4], 5)
    part = {"quantizer": "ResidualKMeans", "parameters": {"codebook_sizes": [4]}}
    built = build_quantizer("PerModality", {"quantizers": json.dumps({"text": part}), "widths": '{"text": 3}'}, seed=5)
    assert isinstance(built, PerModality)
    assert built.quantizers["text"].seed == 5
    with pytest.raises(ValueError, match="PerModality needs the parameter 'quantizers'"):
        build_quantizer("PerModality", {"widths": '{"text": 3}'})
    with pytest.raises(ValueError, match="must hold whole numbers; 'a' is none"):
        build_quantizer("RQVAE", {"codebook_sizes": "['a']"})


def test_balanced_codes_are_those_of_the_items_of_the_fit(vectors):
    items = read_embeddings(vectors)
    quantizer = build_quantizer("BalancedResidualKMeans", {"codebook_sizes": [6, 6]})
    tokenized = Tokenization.fit(items, quantizer, "none")
    np.testing.assert_array_equal(tokenized.sids.codes, quantizer.codes_)
    assert tokenized.levels()["perplexity"][0] == pytest.approx(6)


def test_items_are_chosen_and_joined_with_their_rows():
    items = EmbeddedItems(["a", "b"], np.eye(2, dtype=np.float32), {}, np.zeros((2, 32), np.uint8))
    joined = items.select([1]).append(items.select([0]))
    assert joined.item_ids == ["b", "a"]
    np.testing.assert_array_equal(joined.embeddings, [[0, 1], [1, 0]])
    assert joined.keys.shape == (2, 32)


def test_the_recorded_error_is_that_of_the_saved_quantizer():
    points = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    items = EmbeddedItems([str(row) for row in range(200)], points, {})
    quantizer = JointResidualKMeans((8, 8, 8), rounds=4, progress=False)
    made = Tokenization.fit(items, quantizer, "reassign")
    error = np.square(points - quantizer.reconstruct(made.sids.codes), dtype=np.float64).sum(axis=1).mean()
    assert made.sids.resolution["squared_error_after"] == pytest.approx(error)
    assert collisions(made.sids.codes)["items_colliding"] == 0
