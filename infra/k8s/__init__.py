"""Kubernetes: any cluster that has the Gateway API."""
