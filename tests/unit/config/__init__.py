"""Tests of modelium.config."""
