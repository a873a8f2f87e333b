"""From a prompt to items: the trie of semantic IDs, beam search over it, exact scores, and the record of a search."""

from trialign.decode.beam import Beams, beam_search
from trialign.decode.exact import recall_of_exact, score_all
from trialign.decode.library import TrieLogitsProcessor, prefix_allowed_tokens_fn, request_logits_processor
from trialign.decode.mask import ItemMask
from trialign.decode.record import Fate, SearchLevel, SearchRecord, fates, mass_by_level, where_lost
from trialign.decode.strategies import Best, Diverse, Stochastic, Strategy
from trialign.decode.trie import Trie

__all__ = [
    "Beams",
    "Best",
    "Diverse",
    "Fate",
    "ItemMask",
    "SearchLevel",
    "SearchRecord",
    "Stochastic",
    "Strategy",
    "Trie",
    "TrieLogitsProcessor",
    "beam_search",
    "fates",
    "mass_by_level",
    "prefix_allowed_tokens_fn",
    "recall_of_exact",
    "request_logits_processor",
    "score_all",
    "where_lost",
]
