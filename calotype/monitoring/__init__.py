"""What production shows, held against what the model saw in validation: windows, tests, and when drift holds."""
