"""Makes weights: fine-tunes a checkpoint on a labelled data set, and says what that gave."""
