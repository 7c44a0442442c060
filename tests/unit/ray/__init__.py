"""Tests of modelium.ray."""
