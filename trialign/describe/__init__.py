"""Captions of images (CMSA) and deep interests of items (MDIM): prompts, backends, and the cache of their answers."""

from trialign.describe.backends import Captioner, Miner, Streaming, captioner, miner
from trialign.describe.cache import DescriptionCache
from trialign.describe.parse import InterestAnswerError, Interests, parse_caption, parse_interests
from trialign.describe.prompts import CAPTION_PROMPT, INTEREST_PROMPT, interest_prompt
from trialign.describe.run import caption_items, mine_interests
from trialign.describe.views import ItemError, ItemView, item_views, load_image

__all__ = [
    "CAPTION_PROMPT",
    "INTEREST_PROMPT",
    "Captioner",
    "DescriptionCache",
    "InterestAnswerError",
    "Interests",
    "ItemError",
    "ItemView",
    "Miner",
    "Streaming",
    "caption_items",
    "captioner",
    "interest_prompt",
    "item_views",
    "load_image",
    "mine_interests",
    "miner",
    "parse_caption",
    "parse_interests",
]
