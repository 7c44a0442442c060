"""Tests of triton/backends/."""
