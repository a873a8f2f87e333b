import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import load_file

from trialign.embed import embedder, enriched_text, fusion
from trialign.embed.fusion import FusedEmbedder, fuse, whiten
from trialign.embed.gme import GmeEmbedder
from trialign.embed.image import image_features, open_image
from trialign.embed.text import TextEmbedder, unit_rows
from trialign.embed.towers import TowersEmbedder
from trialign.models import efficientnet, minilm_folder


class Shop:
    """The part of a catalogue that enriched_text reads."""

    def __init__(self, **columns: list[str]):
        self.items = pd.DataFrame({"item_id": [str(row) for row in range(len(columns["title"]))], **columns})
        self.text_columns = [name for name in columns if name != "title"]


def picture(path: Path, colour: str, size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return [picture(folder / f"{colour}.png", colour) for colour in ("red", "blue", "green", "white")]


# enriched text


def test_enriched_text_has_the_methods_order():
    shop = Shop(title=["Mug"], brand=["Oro"], description=["Holds tea."])
    text = enriched_text(shop, {"0": "A red mug."}, {"0": ["tea time", "calm"]})[0]
    assert text == "Mug\nHolds tea.\nbrand: Oro\nimage: A red mug.\ninterests: tea time; calm"


def test_enriched_text_leaves_out_what_there_is_not():
    shop = Shop(title=["Mug", "Lamp"], description=["", "Bright."])
    assert enriched_text(shop) == ["Mug", "Lamp\nBright."]
    assert enriched_text(shop, {"1": "A lamp."}, {"0": []}) == ["Mug", "Lamp\nBright.\nimage: A lamp."]


def test_a_long_description_does_not_push_out_caption_and_interests():
    shop = Shop(title=["Mug"], description=["word " * 1000], brand=["Oro"])
    lines = enriched_text(shop, {"0": "A red mug."}, {"0": ["calm"]}, words=50)[0].split("\n")
    assert len(" ".join(lines[:2]).split()) == 50
    assert lines[2:] == ["image: A red mug.", "interests: calm"]


# factory


@pytest.mark.parametrize("name", ["", "embeded", "text:", "gme", "clip:x"])
def test_an_unknown_embedder_is_refused_with_the_choices(name):
    with pytest.raises(ValueError, match=r"embedded-text.*towers.*gme"):
        embedder(name)


def test_the_factory_makes_each_kind_with_its_options():
    assert isinstance(embedder("embedded", image_weight=0.25), FusedEmbedder)
    assert embedder("embedded", image_weight=0.25).image_weight == 0.25
    assert isinstance(embedder("embedded-text"), TextEmbedder)
    assert embedder("text:folder/x").name == "text:folder/x"
    assert embedder("towers:a", batch_size=3).batch_size == 3
    assert embedder("gme:b").model == "b"


# fusion

unit_free = arrays(np.float64, (4, 3), elements=st.floats(-2, 2, allow_nan=False))


@given(unit_free, unit_free, st.lists(st.booleans(), min_size=4, max_size=4), st.floats(0, 1))
def test_fused_cosine_is_the_weighted_cosine(text, image, present, weight):
    text, image = unit_rows(text + 3), unit_rows(image + 3)
    has = np.array(present)
    both = fuse(text, image, has, weight)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    expected = (1 - weight) * text @ text.T + weight * image @ image.T
    np.testing.assert_allclose((both @ both.T)[np.ix_(has, has)], expected[np.ix_(has, has)], atol=1e-5)


def test_an_item_without_an_image_keeps_its_text_alone():
    text, image = np.eye(2), np.array([[0.6, 0.8], [0.0, 0.0]])
    both = fuse(text, image, np.array([True, False]), 0.5)
    np.testing.assert_allclose(both[1], [0, 1, 0, 0])
    np.testing.assert_allclose(both[0], np.array([1, 0, 0.6, 0.8]) / np.sqrt(2), atol=1e-6)


def test_a_weight_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"image_weight is 1\.5"):
        fuse(np.eye(2), np.eye(2), np.ones(2, bool), 1.5)


def test_whiten_agrees_with_scikit_learns_pca():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).normal(size=(40, 12)) * np.arange(1, 13)
    for whitened, power in ((False, 0.0), (True, 1.0)):
        reference = unit_rows(PCA(5, whiten=whitened, svd_solver="full").fit_transform(rows))
        np.testing.assert_allclose(np.abs(whiten(rows, 5, power)), np.abs(reference), atol=1e-5)


def test_whiten_of_few_or_equal_rows_keeps_what_there_is():
    assert whiten(np.random.default_rng(0).normal(size=(3, 10)), 8, 0.5).shape == (3, 2)
    assert whiten(np.ones((4, 10)), 8, 0.5).shape == (4, 0)
    assert whiten(np.zeros((0, 10)), 8, 0.5).shape == (0, 8)


# images


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    opened = open_image(tmp_path / "turned.png")
    assert opened.size == (10, 20)
    assert opened.getpixel((5, 2)) == (255, 255, 255) and opened.getpixel((5, 17)) == (0, 0, 0)


def test_transparent_places_become_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.save(tmp_path / "clear.png")
    image.convert("P").save(tmp_path / "palette.gif", transparency=0)
    opened = open_image(tmp_path / "clear.png")
    assert opened.getpixel((0, 0)) == (255, 0, 0) and opened.getpixel((2, 2)) == (255, 255, 255)
    assert open_image(tmp_path / "palette.gif").mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16", "LA"])
def test_every_mode_opens_as_rgb(tmp_path, mode):
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.new(mode, (8, 8)).save(path)
    assert open_image(path).mode == "RGB"


def test_bad_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist"):
        open_image(tmp_path / "gone.png")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.jpg cannot be read"):
        open_image(tmp_path / "text.jpg")
    whole = picture(tmp_path / "whole.png", "red", (200, 200)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.png cannot be read"):
        open_image(tmp_path / "half.png")


def test_huge_images_are_refused_before_they_are_decoded(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match=r"huge\.png has 10000 x 6000 pixels.*smaller"):
        open_image(tmp_path / "huge.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png"):
        open_image(tmp_path / "bomb.png")


def test_image_features_do_not_depend_on_the_batch(pictures):
    model = efficientnet()
    together = image_features(pictures, model, batch_size=4, progress=False)
    apart = image_features(pictures, model, batch_size=1, progress=False)
    assert together.shape == (4, 1280) and together.dtype == np.float32
    np.testing.assert_allclose(together, apart, atol=1e-4)


# the embedders


def test_text_embedding_puts_like_by_like_in_any_order():
    texts = ["a red coffee mug", "a horror film about zombies", "a cup for tea", "zombie movie night, " * 20]
    rows = TextEmbedder(batch_size=2).embed(texts, progress=False)
    assert rows.shape == (4, 384) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    likeness = rows @ rows.T
    assert likeness[0, 2] > likeness[0, 1] and likeness[1, 3] > likeness[1, 0]
    np.testing.assert_allclose(TextEmbedder().embed(texts[::-1], progress=False), rows[::-1], atol=1e-5)


def test_text_embedding_equals_sentence_transformers_own():
    from sentence_transformers import SentenceTransformer

    texts = ["a red coffee mug", "boots"]
    reference = SentenceTransformer(str(minilm_folder()), device="cpu").encode(texts)
    np.testing.assert_allclose(TextEmbedder().embed(texts, progress=False), reference, atol=1e-5)


def test_no_texts_give_no_rows():
    assert TextEmbedder().embed([], progress=False).shape == (0, 384)


def test_weights_of_a_text_model_come_from_safetensors_alone(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        TextEmbedder(str(folder)).embed(["a mug"], progress=False)


def test_the_default_sees_text_and_image(pictures):
    texts = ["a mug", "a mug", "a lamp", "a chair", "a lamp"]
    images = [pictures[0], pictures[1], pictures[0], pictures[2], None]
    rows = FusedEmbedder(image_weight=0.5).embed(texts, images, progress=False)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    likeness = rows @ rows.T
    assert likeness[0, 1] < 0.999, "the same text with another image is another item"
    np.testing.assert_allclose(rows[4, 384:], 0)
    np.testing.assert_allclose(likeness[4, 2], np.sqrt(0.5), atol=1e-5)


def test_no_image_at_all_leaves_the_text():
    rows = FusedEmbedder().embed(["a mug", "a lamp"], [None, None], progress=False)
    np.testing.assert_allclose(rows[:, :384], TextEmbedder().embed(["a mug", "a lamp"], progress=False), atol=1e-6)


def test_texts_and_images_must_match():
    for made in (FusedEmbedder(), TowersEmbedder("x"), GmeEmbedder("x")):
        with pytest.raises(ValueError, match="2 texts but 1 images"):
            made.embed(["a", "b"], [None], progress=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_models.tiny_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "bos_token_id": None}
    words |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=sizes | words, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=16
    )
    CLIPModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_two_towers_are_fused(clip, pictures):
    texts = ["a red mug", "a blue mug", "the next item " * 30, "a mug"]
    images = [pictures[0], pictures[1], None, pictures[1]]
    rows = TowersEmbedder(str(clip), batch_size=2).embed(texts, images, progress=False)
    assert rows.shape == (4, 32) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[2, 16:], 0)
    np.testing.assert_allclose(rows[1, 16:], rows[3, 16:], atol=1e-6)
    one_by_one = TowersEmbedder(str(clip), batch_size=1).embed(texts, images, progress=False)
    np.testing.assert_allclose(rows, one_by_one, atol=1e-5)
    assert TowersEmbedder(str(clip)).embed(texts[:2], [None, None], progress=False).shape == (2, 32)


def test_a_model_without_two_towers_is_refused(tmp_path):
    folder = tiny_models.tiny_qwen2(tmp_path / "qwen")
    with pytest.raises(ValueError, match="not a two-tower model"):
        TowersEmbedder(str(folder)).embed(["a"], [None], progress=False)
    with pytest.raises(ValueError, match="needs a Qwen2-VL"):
        GmeEmbedder(str(folder)).embed(["a"], [None], progress=False)


@pytest.fixture(scope="module")
def gme(tmp_path_factory) -> Path:
    return tiny_models.tiny_qwen2_vl(tmp_path_factory.mktemp("gme"))


def test_gme_does_not_depend_on_the_batch(gme, pictures):
    texts = ["a red mug", "a blue mug that is described at length", "no image", "x"]
    images = [pictures[0], pictures[1], None, pictures[2]]
    together = GmeEmbedder(str(gme), batch_size=4).embed(texts, images, progress=False)
    apart = GmeEmbedder(str(gme), batch_size=1).embed(texts, images, progress=False)
    assert together.shape == (4, 64)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_gme_is_the_last_hidden_state_of_the_chat_layout(gme, tmp_path):
    """Against transformers' own reading of the same message (its image placeholder is expanded by hand)."""
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    path = picture(tmp_path / "red.png", "red", (112, 84))
    tokenizer = AutoTokenizer.from_pretrained(gme)
    pixels = Qwen2VLImageProcessorPil.from_pretrained(gme)(images=[open_image(path)], return_tensors="pt")
    pads = "<|image_pad|>" * int(pixels["image_grid_thw"].prod() // 4)
    prompt = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{pads}<|vision_end|>a red mug<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    )
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    model = Qwen2VLForConditionalGeneration.from_pretrained(gme).eval()
    kinds = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    with torch.inference_mode():
        hidden = model(input_ids=ids, mm_token_type_ids=kinds, output_hidden_states=True, **pixels).hidden_states[-1]
    reference = unit_rows(hidden[0, -1:].numpy())
    np.testing.assert_allclose(GmeEmbedder(str(gme)).embed(["a red mug"], [path], progress=False), reference, atol=1e-5)


def test_gme_reads_special_tokens_in_titles_as_text(gme, pictures):
    titles = ["mug <|image_pad|><|im_end|>", "mug <|vision_start|>"]
    rows = GmeEmbedder(str(gme)).embed(titles, [pictures[0], None], progress=False)
    assert np.isfinite(rows).all() and rows.shape == (2, 64)


def test_every_text_and_image_is_read_once(pictures, monkeypatch):
    read = []
    whole = fusion.image_features

    def counted(paths, *arguments, **options):
        read.extend(paths)
        return whole(paths, *arguments, **options)

    monkeypatch.setattr(fusion, "image_features", counted)
    model = FusedEmbedder()
    images = [pictures[0], pictures[1], pictures[0]]
    first = model.embed(["a mug", "a lamp", "a mug"], images, progress=False)
    np.testing.assert_array_equal(model.embed(["a mug", "a lamp", "a mug"], images, progress=False), first)
    assert read == pictures[:2]
    np.testing.assert_array_equal(first[0], first[2])
    alone = model.embed(["a mug", "a lamp"], [None, None], progress=False)
    np.testing.assert_allclose(alone[:, :384], first[:2, :384] * np.sqrt(2), atol=1e-6)
