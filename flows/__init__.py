"""When the work runs, and in what order."""
