"""From a prompt to items: the trie of semantic IDs, beam search over it, exact scores, and the record of a search."""

from trialign.decode.beam import Beams, beam_search
from trialign.decode.exact import score_all
from trialign.decode.record import Fate, SearchLevel, SearchRecord, fates, where_lost
from trialign.decode.trie import ItemMask, Trie, prefix_allowed_tokens_fn

__all__ = [
    "Beams",
    "Fate",
    "ItemMask",
    "SearchLevel",
    "SearchRecord",
    "Trie",
    "beam_search",
    "fates",
    "prefix_allowed_tokens_fn",
    "score_all",
    "where_lost",
]
