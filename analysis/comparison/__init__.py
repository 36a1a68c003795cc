"""What a sweep of one-shot, iterative and structured pruning answers: pairing, statistics, sentences, figures."""
