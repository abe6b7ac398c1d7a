"""Tests on a real kubelet. A package, so that what it shares ends with its last test."""
