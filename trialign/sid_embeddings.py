"""Where the embeddings of SID tokens start: at random as a backbone comes, from the codebooks, or from titles.

A SID token is new to a language model. Its row may start at random; from the quantizer's codebook vector, so that near
codes are near from the first step; or from the words of the items that have the code, which a pretrained model knows.

    initialize_sid_embeddings(model, vocabulary, codebook_rows(quantizer.codebooks_, model.config.hidden_size))
    initialize_sid_embeddings(model, vocabulary, title_rows(model, vocabulary, sids, titles))
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from trialign.sids.semantic_ids import SemanticIds
from trialign.vocabulary import SidVocabulary


def codebook_rows(
    codebooks: Sequence[Float[np.ndarray, "codes *dims"]], hidden: int, seed: int = 0
) -> list[Float[np.ndarray, "codes hidden"]]:
    """Return codebook vectors mapped to the width of a model by a random linear map, which nearly keeps angles.

    Codebooks of one width share the map, so that the sum of an item's mapped codes is its mapped reconstruction.

    Parameters
    ----------
    codebooks
        One array a level, its first axis the codes: `codebooks_` of a quantizer. Further axes are laid end to end.
    hidden
        Width of the model's embeddings.
    seed
        Of the map.
    """
    flat = [np.asarray(codebook, dtype=np.float32).reshape(len(codebook), -1) for codebook in codebooks]
    maps = {
        width: np.random.default_rng([seed, width]).normal(size=(width, hidden)) / width**0.5
        for width in {codebook.shape[1] for codebook in flat}
    }
    return [codebook @ maps[codebook.shape[1]] for codebook in flat]


@torch.no_grad()
def title_rows(
    model: PreTrainedModel | PeftModel, vocabulary: SidVocabulary, sids: SemanticIds, titles: Sequence[str]
) -> list[Float[np.ndarray, "codes hidden"]]:
    """Return for each code the mean over its items of the mean embedding of the title's tokens.

    Codes of no item with a title have NaN: they keep their rows.

    Parameters
    ----------
    model
        Its embeddings of text tokens are read.
    vocabulary
        Its tokenizer with the SID tokens.
    sids
        The items' SIDs.
    titles
        Title of every item, in the order of `sids`.

    Raises
    ------
    ValueError
        If there are not as many titles as items.
    """
    if len(titles) != len(sids):
        raise ValueError(f"{len(titles)} titles for {len(sids)} items: give one a row, empty where there is none")
    weight: Tensor = _embedding_layer(model).weight.detach().float().cpu()
    texts = np.full((len(titles), weight.shape[1]), np.nan)
    for row, title in enumerate(titles):
        if tokens := vocabulary.encode_text(title):
            texts[row] = weight[tokens].mean(dim=0).numpy()
    titled = ~np.isnan(texts[:, 0])
    return [_means(texts, codes, titled & (codes >= 0), size) for codes, size in zip(sids.codes.T, sids.codebook_sizes)]


@torch.no_grad()
def initialize_sid_embeddings(
    model: PreTrainedModel | PeftModel, vocabulary: SidVocabulary, rows: Sequence[Float[np.ndarray, "codes hidden"]]
) -> None:
    """Put rows in place of the input embeddings of the SID tokens; a tied output layer has them too.

    Each level is centred on the mean of the text tokens' embeddings and scaled to their root mean square distance from
    it, so that only the directions of the rows matter, and the layers above see embeddings of the size they know.

    Parameters
    ----------
    model
        Changed in place; of a LoRA model the trained SID rows.
    vocabulary
        Where the SID tokens are.
    rows
        One array a level, of `codebook_rows` or `title_rows`. A row with NaN leaves its token as it is, and so do
        levels that are not given, such as the suffix level.

    Raises
    ------
    ValueError
        If the shapes are not those of the vocabulary and the model.
    """
    weight: Tensor = _embedding_layer(model).weight.detach()
    shapes = [(size, weight.shape[1]) for size in vocabulary.codebook_sizes]
    if [each.shape for each in rows] != shapes[: len(rows)]:
        raise ValueError(f"the levels need rows of shapes {shapes}, got {[each.shape for each in rows]}")
    text = weight[: int(vocabulary.all_sid_token_ids.min())].float().cpu()
    centre = text.mean(dim=0)
    spread = _spread(text - centre)
    for ids, level_rows in zip(vocabulary.sid_token_ids, rows):
        given = ~np.isnan(level_rows).any(axis=1)
        if given.any():
            directions = torch.from_numpy(np.asarray(level_rows[given], dtype=np.float32))
            directions = directions - directions.mean(dim=0)
            _write(model, ids[given], centre + directions * (spread / max(_spread(directions), 1e-12)))


def _spread(directions: Float[Tensor, "tokens hidden"]) -> float:
    """Return the root mean square length."""
    return float(directions.square().sum(dim=1).mean().sqrt())


def _means(
    texts: Float[np.ndarray, "items hidden"],
    codes: Int[np.ndarray, " items"],
    usable: np.ndarray,
    size: int,
) -> Float[np.ndarray, "codes hidden"]:
    """Return the mean text of every code's usable items; NaN where there is none."""
    sums = np.zeros((size, texts.shape[1]))
    np.add.at(sums, codes[usable], texts[usable])
    counts = np.bincount(codes[usable], minlength=size)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _embedding_layer(model: PreTrainedModel | PeftModel) -> Any:
    core: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return core.get_input_embeddings()


def _write(
    model: PreTrainedModel | PeftModel, ids: Int[np.ndarray, " tokens"], rows: Float[Tensor, "tokens hidden"]
) -> None:
    """Write the embeddings of SID tokens where they are trained: in the layer, or in peft's copy of the rows."""
    layer = _embedding_layer(model)
    if not isinstance(model, PeftModel):
        layer.weight[torch.from_numpy(ids)] = rows.to(layer.weight)
        return
    adapter, name = layer.token_adapter, model.active_adapter
    place = {token: place for place, token in enumerate(adapter.token_indices[name])}
    trained = adapter.trainable_tokens_delta[name]
    trained[[place[token] for token in ids.tolist()]] = rows.to(trained)
