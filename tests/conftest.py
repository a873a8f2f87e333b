"""Settings of all tests; the environment's hold before torch is imported: one thread, no look-ups on the model hub."""

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
