"""Makes weights: fine-tunes a checkpoint on a labelled data set, and distils a large network into a small one."""
