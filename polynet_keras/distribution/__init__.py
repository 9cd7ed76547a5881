"""Many machines: the cluster, a model whose `fit` works on it, checkpoints, the launcher."""
