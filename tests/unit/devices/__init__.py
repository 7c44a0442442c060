"""Tests of modelium.devices."""
