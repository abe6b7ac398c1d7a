"""Tailrace: a Kubernetes operator and load balancer for LLM inference servers."""

from tailrace.core.balancer import LoadBalancer, ThreadSafeLoadBalancer

__version__ = "0.1.0"
__all__ = ["LoadBalancer", "ThreadSafeLoadBalancer", "__version__"]
