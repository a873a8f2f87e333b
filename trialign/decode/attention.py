"""Attention of many prefixes to one prompt: the prompt's keys and values are stored once a user and never copied.

A prefix attends to its user's prompt (one matrix product for all prefixes of a user) and to its own few tokens (its
path), whose keys and values follow it from level to level.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of what all prefixes of a user attend to, in one layer.

    Attributes
    ----------
    keys
        [users, key_value_heads, head_size, length].
    values
        [users, key_value_heads, length, head_size].
    """

    keys: Float[Tensor, "users kv_heads head_size length"]
    values: Float[Tensor, "users kv_heads length head_size"]

    @classmethod
    def empty(cls, users: int, length: int, like: Float[Tensor, "... kv_heads head_size"]) -> "Memory":
        """Return a memory of zeros, for heads like these."""
        heads, size = like.shape[-2:]
        return cls(like.new_zeros(users, heads, size, length), like.new_zeros(users, heads, length, size))

    def write(
        self,
        users: slice,
        keys: Float[Tensor, "some_users some_length kv_heads head_size"],
        values: Float[Tensor, "some_users some_length kv_heads head_size"],
    ) -> None:
        """Write the heads of some users, from the first token on."""
        length = keys.shape[1]
        self.keys[users, :, :, :length] = keys.permute(0, 2, 3, 1)
        self.values[users, :, :length] = values.transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Path:
    """Keys and values of each prefix's own tokens, in one layer.

    Attributes
    ----------
    keys, values
        [prefixes, tokens, key_value_heads, head_size].
    """

    keys: Float[Tensor, "prefixes tokens kv_heads head_size"]
    values: Float[Tensor, "prefixes tokens kv_heads head_size"]


def grown(
    path: Path | None,
    parents: Int[Tensor, " prefixes"],
    keys: Float[Tensor, "prefixes kv_heads head_size"],
    values: Float[Tensor, "prefixes kv_heads head_size"],
) -> Path:
    """Return the paths of new prefixes: each its parent's, if there is any yet, and one token more."""
    if path is None:
        return Path(keys[:, None], values[:, None])
    return Path(
        torch.cat([path.keys.index_select(0, parents), keys[:, None]], dim=1),
        torch.cat([path.values.index_select(0, parents), values[:, None]], dim=1),
    )


@dataclass(frozen=True, eq=False)
class Layout:
    """Where packed prefixes stand among the columns of their users.

    Attributes
    ----------
    users, width
        Shape of the table of columns.
    rows
        Index of each prefix in the flattened table, ascending; None if every column holds a prefix.
    """

    users: int
    width: int
    rows: Int[Tensor, " prefixes"] | None

    def spread(self, packed: Float[Tensor, "prefixes ..."]) -> Float[Tensor, "users width ..."]:
        """Put packed prefixes into their columns; the other columns are zero."""
        if self.rows is not None:
            table = packed.new_zeros(self.users * self.width, *packed.shape[1:])
            packed = table.index_copy_(0, self.rows, packed)
        return packed.unflatten(0, (self.users, self.width))

    def pack(self, table: Float[Tensor, "users width ..."]) -> Float[Tensor, "prefixes ..."]:
        """Take the prefixes out of their columns."""
        flat = table.flatten(0, 1)
        return flat if self.rows is None else flat.index_select(0, self.rows)


def attend_memory(
    queries: Float[Tensor, "prefixes heads head_size"],
    layout: Layout,
    scale: float,
    memory: Memory,
    bias: Float[Tensor, "users 1 1 length"] | None,
) -> Float[Tensor, "prefixes heads_times_head_size"]:
    """Return the attention of each prefix to its user's memory.

    Parameters
    ----------
    queries
        One query a prefix, packed.
    layout
        Which user each prefix belongs to.
    scale
        Factor of the scores.
    memory
        Of all users.
    bias
        Added to the scores: 0, and the least number where the memory is padding; None where there is none.
    """
    weights = _softmax(_memory_scores(queries, layout, scale, memory, bias), queries.dtype)
    return _memory_output(weights, layout, memory).flatten(1)


def attend_path(
    queries: Float[Tensor, "prefixes heads head_size"],
    scale: float,
    path: Path,
    bias: Float[Tensor, "tokens heads 1"] | None = None,
) -> Float[Tensor, "prefixes heads_times_head_size"]:
    """Return the attention of each prefix to its own tokens; `bias` is added to the scores."""
    scores = _path_scores(queries, scale, path)
    weights = _softmax(scores if bias is None else scores + bias, queries.dtype, dim=1)
    return _path_output(weights, path).flatten(1)


def attend_memory_and_path(
    queries: Float[Tensor, "prefixes heads head_size"],
    layout: Layout,
    scale: float,
    memory: Memory,
    bias: Float[Tensor, "users 1 1 length"] | None,
    path: Path,
) -> Float[Tensor, "prefixes heads_times_head_size"]:
    """Return the attention of each prefix to its user's memory and its own tokens, with one softmax over both."""
    length = memory.keys.shape[3]
    to_memory = _memory_scores(queries, layout, scale, memory, bias)
    # [prefixes, tokens, kv_heads, group] into the columns of the memory's scores
    to_path = layout.spread(_path_scores(queries, scale, path)).permute(0, 3, 4, 1, 2).flatten(2, 3)
    weights = _softmax(torch.cat([to_memory, to_path], dim=3), queries.dtype)
    from_memory = _memory_output(weights[..., :length], layout, memory)
    on_path = weights[..., length:].unflatten(2, (-1, layout.width)).permute(0, 3, 4, 1, 2)
    return (from_memory + _path_output(layout.pack(on_path), path)).flatten(1)


def _memory_scores(
    queries: Float[Tensor, "prefixes heads head_size"],
    layout: Layout,
    scale: float,
    memory: Memory,
    bias: Float[Tensor, "users 1 1 length"] | None,
) -> Float[Tensor, "users kv_heads group_times_width length"]:
    """Query heads that share a key head stand side by side, so that keys are not repeated."""
    grouped = layout.spread(_scaled(queries, scale)).unflatten(2, (memory.keys.shape[1], -1))
    scores = grouped.permute(0, 2, 3, 1, 4).flatten(2, 3) @ memory.keys
    return scores if bias is None else scores + bias


def _memory_output(
    weights: Float[Tensor, "users kv_heads group_times_width length"], layout: Layout, memory: Memory
) -> Float[Tensor, "prefixes kv_heads group head_size"]:
    output = (weights @ memory.values).unflatten(2, (-1, layout.width))
    return layout.pack(output.permute(0, 3, 1, 2, 4))


def _path_scores(
    queries: Float[Tensor, "prefixes heads head_size"], scale: float, path: Path
) -> Float[Tensor, "prefixes tokens kv_heads group"]:
    """Paths have a few tokens: products and sums are quicker than thousands of tiny matrix products."""
    grouped = _scaled(queries, scale).unflatten(1, (path.keys.shape[2], -1))
    return (grouped[:, None] * path.keys[:, :, :, None]).sum(-1)


def _path_output(
    weights: Float[Tensor, "prefixes tokens kv_heads group"], path: Path
) -> Float[Tensor, "prefixes kv_heads group head_size"]:
    return (weights[..., None] * path.values[:, :, :, None]).sum(1)


def _scaled(queries: Float[Tensor, "..."], scale: float) -> Float[Tensor, "..."]:
    return queries if scale == 1 else queries * scale


def _softmax(scores: Float[Tensor, "..."], dtype: torch.dtype, dim: int = -1) -> Float[Tensor, "..."]:
    return torch.softmax(scores, dim, dtype=torch.float32).to(dtype)
