"""Tests of modelium.triton."""
