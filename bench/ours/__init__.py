"""Programs of ours that the benchmarks run in processes of their own."""
