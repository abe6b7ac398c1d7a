"""Tailrace: a Kubernetes operator and load balancer for LLM inference servers."""

__version__ = "0.1.0"
