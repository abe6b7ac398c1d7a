"""Tests on broken parts. A package, so that what it shares ends with its last test."""
