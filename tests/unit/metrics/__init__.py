"""Tests of modelium.metrics."""
