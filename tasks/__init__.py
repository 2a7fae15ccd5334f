"""What Prefect may retry: one task around each stage and each verb of calotype."""
