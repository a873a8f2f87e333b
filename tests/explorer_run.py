"""A small run with the artifacts that explorers read, made in a second: part of `atelier`, an untrained model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from trialign.backbone import make_backbone
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.recommend import GenerativeRecommender
from trialign.sids import ResidualKMeans, SemanticIds, load_quantizer, resolve_collisions
from trialign.split import leave_one_out
from trialign.workspace import Workspace

#: A title that would do harm if it were not escaped, and that says so.
EVIL = "<img src=x onerror=\"document.title='hacked'\"> <b>$\\frac{1}{2}$ <a_1>"

#: Cells that read such a run, as a notebook would; RUN is replaced by its folder.
READ = """
from explorer_run import read_run
made = read_run(RUN)
"""


@dataclass(frozen=True, eq=False)
class Made:
    """What explorers read, loaded."""

    catalogue: Catalogue
    captions: pd.DataFrame
    interests: pd.DataFrame
    embeddings: np.ndarray
    quantizer: object
    sids: SemanticIds
    recommender: GenerativeRecommender


def make_run(root: Path, items: int = 60) -> Workspace:
    """Write the stages of a run named demo: items in eight visible groups, the first title harmful."""
    whole = load("atelier").select(np.arange(items))
    frame = whole.items.copy()
    frame.loc[0, "title"] = EVIL
    catalogue = Catalogue(frame, whole.interactions, whole.root, "atelier")
    space = Workspace("demo", root)
    stage = space.begin("01_catalogue", {})
    catalogue.save(stage.folder)
    stage.commit({"items": items})
    ids = frame["item_id"].tolist()
    groups = np.asarray(catalogue.groups())
    stage = space.begin("02_captioning", {}, ["01_catalogue"])
    captions = [f"A {group.lower()} thing, number {row}." for row, group in enumerate(groups)]
    pd.DataFrame({"item_id": ids, "caption": captions, "model": "a test", "source": "made", "error": ""}).to_parquet(
        stage.folder / "captions.parquet"
    )
    stage.commit()
    stage = space.begin("03_interest_mining", {}, ["01_catalogue"])
    tags = [[f"love of {group.lower()}", "gifts for friends"] for group in groups]
    pd.DataFrame(
        {"item_id": ids, "interests": tags, "reasoning": EVIL, "model": "a test", "source": "made", "error": ""}
    ).to_parquet(stage.folder / "interests.parquet")
    stage.commit()
    stage = space.begin("04_semantic_ids", {}, ["01_catalogue"])
    centres = np.random.default_rng(0).normal(size=(len(set(groups)), 16))
    number = pd.factorize(groups)[0]
    embeddings = (centres[number] + 0.3 * np.random.default_rng(1).normal(size=(items, 16))).astype(np.float32)
    quantizer = ResidualKMeans(codebook_sizes=(8, 8), seed=0).fit(embeddings)
    sids = resolve_collisions(quantizer.encode(embeddings), (8, 8), ids, "suffix", quantizer, embeddings)
    sids.save(stage.folder / "sids")
    quantizer.save(stage.folder / "quantizer")
    save_file({"embeddings": embeddings}, stage.folder / "embeddings.safetensors")
    stage.commit()
    stage = space.begin("05_multitask_training", {}, ["04_semantic_ids"])
    model, vocabulary = make_backbone("scratch", sids.codebook_sizes, catalogue.titles, hidden=32, layers=1)
    GenerativeRecommender(model, vocabulary, sids).save(stage.folder / "model")
    stage.commit({"best validation NDCG@10": 0.1})
    return space


def read_run(folder: str | Path) -> Made:
    """Read what `make_run` wrote, or any run."""
    folder = Path(folder)
    return Made(
        Catalogue.load(folder / "01_catalogue"),
        pd.read_parquet(folder / "02_captioning" / "captions.parquet"),
        pd.read_parquet(folder / "03_interest_mining" / "interests.parquet"),
        load_file(folder / "04_semantic_ids" / "embeddings.safetensors")["embeddings"],
        load_quantizer(folder / "04_semantic_ids" / "quantizer"),
        SemanticIds.load(folder / "04_semantic_ids" / "sids"),
        GenerativeRecommender.load(folder / "05_multitask_training" / "model"),
    )


def explorers_of(made: Made, judgements: Path) -> dict[str, object]:
    """Return every explorer of a run, by name."""
    from trialign.explore.beams import explore_beams
    from trialign.explore.desk import explore_descriptions
    from trialign.explore.map import explore_map
    from trialign.explore.map_points import principal_layout
    from trialign.explore.runs import explore_runs
    from trialign.explore.sids import explore_sids

    captions = made.captions.set_index("item_id")["caption"].to_dict()
    interests = made.interests.set_index("item_id")["interests"].map(list).to_dict()
    rebuilt = made.quantizer.reconstruct(made.sids.codes[:, : made.sids.levels])
    layouts = {"embedding": principal_layout(made.embeddings), "semantic IDs": principal_layout(rebuilt)}
    runs = pd.DataFrame(
        {
            "run": list("abcd"),
            "codebook_sizes": ["[16, 16]", "[16, 16]", "[32, 32]", "[32, 32]"],
            "seed": [0, 1, 0, 1],
            "06_beam_search.ndcg@10": [0.05, 0.06, 0.08, None],
        }
    )
    return {
        "sids": explore_sids(
            made.sids,
            made.catalogue,
            captions=captions,
            interests=interests,
            embeddings=made.embeddings,
            quantizer=made.quantizer,
        ),
        "map": explore_map(made.catalogue, made.sids, layouts, interests=interests),
        "beams": explore_beams(made.recommender, made.catalogue, leave_one_out(made.catalogue)),
        "desk": explore_descriptions(made.catalogue, made.captions, made.interests, judgements),
        "runs": explore_runs(runs, ["codebook_sizes", "seed"]),
    }
