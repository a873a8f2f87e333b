"""Item images from files that may be missing, broken, huge or somewhere they should not be."""

import os
from pathlib import Path

from PIL import Image, ImageOps


class ImageError(ValueError):
    """Raised for an image that can't be opened; `problem` and `fix` are the two halves of the message.

    Parameters
    ----------
    file
        The image's name.
    problem
        What is wrong.
    fix
        What to do about it.
    """

    def __init__(self, file: str, problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{file}: {problem}; fix: {fix}")


def open_rgb(path: Path) -> Image.Image:
    """Open an image as RGB, upright (EXIF orientation applied), transparent parts on white.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    PIL.Image.Image
        The decoded image, mode RGB.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no readable image or has more pixels than Pillow's decompression bomb limit.
    """
    try:
        with Image.open(path) as image:
            _refuse_huge(image, path)
            return _on_white(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image; fix: add the file or empty the item's image cell") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            str(path), f"the image is huge ({error})", "make it smaller, 1024 pixels a side are plenty"
        ) from None
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's decoders raise all three on broken files
        raise ImageError(
            str(path), f"not a readable image ({error})", "replace the file by a JPEG, PNG or WebP"
        ) from None


def _refuse_huge(image: Image.Image, path: Path) -> None:
    # Between one and two times its limit Pillow only warns; here the limit is a limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width} x {image.height}"
        raise ImageError(
            str(path),
            f"the image is huge ({size} pixels, limit {limit})",
            "make it smaller, 1024 pixels a side are plenty",
        )


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


class ImageFolder:
    """Looks image files up below one folder; it keeps the resolved parent folders, so that many look-ups are cheap.

    Parameters
    ----------
    root
        The folder that image paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = os.path.realpath(root)
        self._inside: dict[str, bool] = {}

    def resolve(self, relative: str) -> Path:
        """Return the path of an image.

        Raises
        ------
        ValueError
            If the path is absolute or leaves the folder, by ``..`` or by a link.
        FileNotFoundError
            If there is no such file.
        """
        path = self.root / relative
        try:
            inside = not Path(relative).is_absolute() and "\0" not in relative and self._contains(path)
            found = inside and path.is_file()
        except OSError as error:
            problem = f"the name can't be a file's ({error.strerror})"
            raise ImageError(relative, problem, "give the image a shorter name") from None
        if not inside:
            raise ImageError(
                relative, "the image lies outside the catalogue's folder", "copy it into images/ and name it so"
            )
        if not found:
            raise FileNotFoundError(f"{relative}: no such image; fix: add the file or empty the item's image cell")
        return path

    def _contains(self, path: Path) -> bool:
        parent = str(path.parent)
        if parent not in self._inside:
            self._inside[parent] = self._below_root(os.path.realpath(parent))
        return self._inside[parent] and (not path.is_symlink() or self._below_root(os.path.realpath(path)))

    def _below_root(self, real: str) -> bool:
        return real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)
