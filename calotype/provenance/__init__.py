"""Where everything came from: lineage, git, DVC's cache, traces, reproductions."""
