"""Recommenders to stand beside the generative one, all with one interface: `fit(split)` and `recommend(...)`."""

from trialign.baselines.item_knn import ItemKNN
from trialign.baselines.popularity import Popularity
from trialign.baselines.ranking import Recommender, top_items
from trialign.baselines.sasrec import SASRec

__all__ = ["ItemKNN", "Popularity", "Recommender", "SASRec", "top_items"]
