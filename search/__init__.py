"""What to try, and running it: study files, Optuna under Ray Tune, and the command line."""
