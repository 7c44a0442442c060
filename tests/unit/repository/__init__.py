"""Tests of modelium.repository."""
