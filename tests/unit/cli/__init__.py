"""Tests of modelium.cli."""
