"""Tests of modelium.guarded."""
