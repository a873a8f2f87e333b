"""Image files opened safely, and EfficientNet-Lite0 features of many of them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from trialign.models import IMAGE_SIZE, ImageFeatures, efficientnet
from trialign.progress import tqdm

#: Pixels above which an image is refused: it would take hundreds of MB, and a thumbnail says as much.
MAX_PIXELS = 50_000_000


def open_image(path: str | Path) -> Image.Image:
    """Open an image as RGB: turned as its EXIF orientation says, transparent parts on white.

    Parameters
    ----------
    path
        Any format that Pillow reads; of an animation the first picture.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no image, is damaged or has more than :data:`MAX_PIXELS` pixels; the message names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"image {path} does not exist: correct the catalogue's image column or add the file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"image {path} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}: "
                        "save it smaller (a side of 500 pixels is plenty)"
                    )
                return _rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(
            f"image {path} cannot be read ({error}): replace the file or clear its image column"
        ) from error


def image_features(
    paths: Sequence[Path], model: ImageFeatures | None = None, batch_size: int = 16, *, progress: bool = True
) -> Float[np.ndarray, "images 1280"]:
    """Return EfficientNet-Lite0's pooled features of image files.

    Every image is squeezed into a square of 224 pixels, whole: nothing is cut off, the aspect is not kept.

    Parameters
    ----------
    paths
        Image files.
    model
        A loaded network; by default the packaged one.
    batch_size
        Images read at once.
    progress
        Show a bar.
    """
    model = model or efficientnet()
    rows = [np.zeros((0, 1280), np.float32)]
    with tqdm(total=len(paths), desc="image features", unit="image", disable=not progress) as bar:
        for start in range(0, len(paths), batch_size):
            batch = [open_image(path) for path in paths[start : start + batch_size]]
            rows.append(feature_maps(batch, model)[0].mean(dim=(2, 3)).numpy())
            bar.update(len(batch))
    return np.concatenate(rows)


def feature_maps(images: Sequence[Image.Image], model: ImageFeatures) -> tuple[Tensor, Tensor]:
    """Return the last map ``[images, 1280, 7, 7]`` and the inner map of opened images (:class:`ImageFeatures`)."""
    squares = [image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, reducing_gap=2.0) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(square, dtype=np.float32) for square in squares]) / 127.5 - 1.0)
    with torch.inference_mode():
        # The transposed view of an image batch is channels-last already, the order this network runs fastest in.
        return model(pixels.permute(0, 3, 1, 2))


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; what is transparent shows white."""
    if "transparency" not in image.info and "A" not in image.getbands():
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
