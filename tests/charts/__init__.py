"""Tests on the chart. A package, so that what it shares ends with its last test."""
