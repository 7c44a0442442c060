"""Tests of modelium.analyzers."""
