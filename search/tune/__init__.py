"""Ray Tune's side: the searcher, the schedulers, the trial and the display."""
