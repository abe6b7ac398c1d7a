"""Tests on a real control plane. A package, so that what it shares ends with its last test."""
