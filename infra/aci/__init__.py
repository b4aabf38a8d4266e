"""Azure Container Instances, the cheap option."""
