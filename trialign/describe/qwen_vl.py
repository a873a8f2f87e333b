"""A processor of Qwen2-VL and Qwen2.5-VL for images, which needs no torchvision.

The stock processor also prepares videos, and its video half can't even be built without torchvision. This one has an
image half (Pillow and NumPy) and a tokenizer, reads the same files and gives the model the same inputs.
"""

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

#: The architectures whose images this processor prepares, as `config.model_type` names them.
MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")


class QwenVLImageProcessor(Qwen2_5_VLProcessor):
    """Image half and tokenizer of a Qwen-VL processor; called like any transformers processor.

    Parameters
    ----------
    image_processor
        Cuts images into patches.
    tokenizer
        The model's tokenizer; must know ``<|image_pad|>``.
    chat_template
        The model's chat layout; the tokenizer's own by default.
    """

    # transformers reads the processor's parts from this signature: two parts, hence no video half.
    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
    ):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(
            self, image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template
        )

    @property
    def model_input_names(self) -> list[str]:
        """What the processor gives the model; nothing of videos."""
        return ["input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"]


def qwen_vl_processor(name_or_folder: str, **options: Any) -> QwenVLImageProcessor:
    """Load the processor of a Qwen2-VL or Qwen2.5-VL model, images only.

    Parameters
    ----------
    name_or_folder
        A model of the hub or a folder.
    **options
        Passed to both halves: ``revision``, ``local_files_only``, and ``min_pixels`` and ``max_pixels``, which bound
        the size to which an image is scaled (28 x 28 pixels are one token).

    Returns
    -------
    QwenVLImageProcessor
        The processor; it pads on the left, as generation needs it.
    """
    pixels = {key: options.pop(key) for key in ("min_pixels", "max_pixels") if options.get(key) is not None}
    tokenizer = AutoTokenizer.from_pretrained(name_or_folder, padding_side="left", trust_remote_code=False, **options)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(name_or_folder, **pixels, **options)
    return QwenVLImageProcessor(image_processor, tokenizer)
