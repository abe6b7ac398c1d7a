"""The Kubernetes side, run as a child process: observations out, desired state in."""
