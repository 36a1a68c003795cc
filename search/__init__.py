"""What to try, and running it: study files, Optuna under Ray Tune, and the command line."""

import trainables  # noqa: F401 - before torch
