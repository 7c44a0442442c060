"""Tests of modelium.analysis."""
