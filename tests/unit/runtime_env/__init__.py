"""Tests of modelium.runtime_env."""
