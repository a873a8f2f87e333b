"""The SID tokens of a language model: one added token for every code of every level."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trialign.folders import reading
from trialign.sids.semantic_ids import SemanticIds, token

_FILE = "sid_vocabulary.json"


def _names(codebook_sizes: Sequence[int]) -> list[list[str]]:
    return [[token(level, code) for code in range(size)] for level, size in enumerate(codebook_sizes)]


@dataclass(frozen=True, eq=False)
class SidVocabulary:
    """A tokenizer that knows the SID tokens, and where they are.

    Make one with `add_to` or `load`. The SID tokens are *special* tokens and catalogue text is always encoded with
    special tokens switched off (`encode_text`), so no title or caption can ever turn into a SID or into a control
    token of the model, whatever it spells.

    Attributes
    ----------
    tokenizer
        The tokenizer, SID tokens included.
    codebook_sizes
        Codes per level, the suffix level of resolved collisions included.
    sid_token_ids
        Per level an int64 array: code to token id.
    """

    tokenizer: PreTrainedTokenizerBase
    codebook_sizes: tuple[int, ...]
    sid_token_ids: list[Int[np.ndarray, " codes"]]

    @classmethod
    def add_to(cls, tokenizer: PreTrainedTokenizerBase, codebook_sizes: Sequence[int]) -> "SidVocabulary":
        """Add the SID tokens to a tokenizer (in place) and return the vocabulary.

        Parameters
        ----------
        tokenizer
            Any fast tokenizer with an end-of-text token; without a padding token, the end-of-text token pads.
        codebook_sizes
            Codes per level, the suffix level included (`SemanticIds.codebook_sizes`).

        Raises
        ------
        ValueError
            If there is no level or an empty codebook, if the tokenizer has no end-of-text token, or if it cannot keep
            text and special tokens apart.
        """
        sizes = tuple(int(size) for size in codebook_sizes)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"codebook_sizes must be positive, one number a level, got {sizes}")
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-text token: set tokenizer.eos_token, text answers end with it"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        added = [AddedToken(name, normalized=False, special=True) for level in _names(sizes) for name in level]
        tokenizer.add_tokens(added, special_tokens=True)
        return cls._of(tokenizer, sizes)

    @classmethod
    def _of(cls, tokenizer: PreTrainedTokenizerBase, sizes: tuple[int, ...]) -> "SidVocabulary":
        names = _names(sizes)
        ids = [np.asarray(tokenizer.convert_tokens_to_ids(level), dtype=np.int64) for level in names]
        vocabulary = cls(tokenizer, sizes, ids)
        flat = np.concatenate(ids)
        if len(np.unique(flat)) != sum(sizes):
            raise ValueError(
                "the tokenizer lacks some SID tokens, or maps two of them to one id; start from a fresh one"
            )
        first = vocabulary._encode(names[0][0])
        if np.isin(first, flat).any():
            raise ValueError(
                f"{type(tokenizer).__name__} turns the text {names[0][0]!r} into a SID token: use a fast tokenizer, "
                "which can switch special tokens off (split_special_tokens)"
            )
        return vocabulary

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends a text answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        """Id of the token that fills batches."""
        return int(self.tokenizer.pad_token_id)

    @property
    def all_sid_token_ids(self) -> Int[np.ndarray, " tokens"]:
        """Token ids of all levels, level after level."""
        return np.concatenate(self.sid_token_ids)

    def __len__(self) -> int:
        """Return the number of rows that the embedding of a model needs (largest token id + 1)."""
        return max(len(self.tokenizer), int(self.all_sid_token_ids.max()) + 1)

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of a text; never a SID token, never another special or control token.

        ``tokenizer.decode`` of the result gives the text back for byte-level tokenizers.
        """
        tokens = self._encode(text)
        if self._control_ids.isdisjoint(tokens):
            return tokens
        # Some marks of chat models are added without being special (<tool_call>), and unigram models know their own as
        # words (</s>): such a text is read mark by mark, where nothing can be spelled.
        return [token for mark in text for token in self._encode(mark)]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids of all added tokens but the unknown one, and those for runs of spaces, which are text."""
        added = self.tokenizer.added_tokens_decoder.items()
        unknown = self.tokenizer.unk_token_id
        return frozenset(i for i, added_token in added if len(added_token.content.strip()) > 1 and i != unknown)

    def sequences(self, sids: SemanticIds) -> Int[np.ndarray, "items depth"]:
        """Return every item's SID as token ids, -1 where an item has no code at a level.

        Raises
        ------
        ValueError
            If the codebook sizes of the SIDs are not those of this vocabulary.
        """
        if tuple(sids.codebook_sizes) != self.codebook_sizes:
            raise ValueError(
                f"the SIDs have codebook sizes {tuple(sids.codebook_sizes)}, the vocabulary {self.codebook_sizes}: "
                "make the vocabulary from these SIDs' codebook_sizes"
            )
        tokens = np.full(sids.codes.shape, -1, dtype=np.int64)
        for level, ids in enumerate(self.sid_token_ids):
            known = sids.codes[:, level] >= 0
            tokens[known, level] = ids[sids.codes[known, level]]
        return tokens

    def save(self, folder: str | Path) -> Path:
        """Write the tokenizer and the codebook sizes to a folder and return it."""
        folder = Path(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / _FILE).write_text(json.dumps({"codebook_sizes": list(self.codebook_sizes)}), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "SidVocabulary":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder holds no saved vocabulary.
        """
        file = Path(folder) / _FILE
        if not file.is_file():
            raise FileNotFoundError(f"{file} not found: save one with SidVocabulary.save first")
        fix = "train the model again (notebook 05)"
        with reading(Path(folder), fix):
            sizes = tuple(json.loads(file.read_text(encoding="utf-8"))["codebook_sizes"])
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            except Exception as error:  # the tokenizers library raises nothing narrower for a damaged file
                raise ValueError(f"{folder}: the tokenizer is damaged ({error}); fix: {fix}") from error
            return cls._of(tokenizer, sizes)
