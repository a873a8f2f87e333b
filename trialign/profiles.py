"""Named sets of notebook parameters: which models a run uses, and what suits a data set.

Values are applied in this order, later ones win: the notebook's own, the data set's preset, the profile, ``-p``.
A name that a notebook does not declare is not passed to it.
"""

from collections.abc import Mapping
from typing import Any

#: Which models do the work. ``embedded`` is what the notebooks themselves say: small models that come inside
#: packages, offline on two cores in minutes. ``laptop`` takes hub models of a few hundred MB, ``paper`` the paper's.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "embedded": {
        "captioner": "embedded",
        "miner": "embedded",
        "embedder": "embedded",
        "backbone": "scratch",
    },
    "laptop": {
        "captioner": "hub:HuggingFaceTB/SmolVLM-256M-Instruct",
        "miner": "hub:Qwen/Qwen2.5-0.5B-Instruct",
        "embedder": "towers:google/siglip-base-patch16-224",
        "backbone": "Qwen/Qwen3-0.6B",
        "lora_rank": 16,
    },
    "paper": {
        "captioner": "hub:Qwen/Qwen2.5-VL-7B-Instruct",
        "miner": "hub:Qwen/Qwen2.5-7B-Instruct",
        "embedder": "gme:Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "backbone": "Qwen/Qwen2.5-1.5B",
        "lora_rank": None,
        "codebook_sizes": [4096, 2048, 1024],
    },
}

#: What a data set needs otherwise than the shipped catalogue: recorded descriptions, larger codebooks, more steps.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "movielens-posters": {
        "captioner": "recorded:movielens-posters",
        "miner": "recorded:movielens-posters",
        "codebook_sizes": [128, 128, 128],
        "steps": 4000,
    },
}


def profile_parameters(profile: str | None, dataset: str | None) -> dict[str, Any]:
    """Return the parameters of a data set's preset with those of a profile above them.

    Parameters
    ----------
    profile
        A name in `PROFILES`, or None for what the notebooks themselves say.
    dataset
        Name of the data set; one without a preset adds nothing but its name.

    Raises
    ------
    ValueError
        If there is no such profile.
    """
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    parameters: dict[str, Any] = {}
    if dataset is not None:
        parameters |= {"dataset": dataset, **PRESETS.get(dataset, {})}
    return parameters | dict(PROFILES[profile] if profile else {})
