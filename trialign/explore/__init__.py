"""ipywidgets explorers; they read artifacts and change nothing, and show a still picture where no kernel is live."""
