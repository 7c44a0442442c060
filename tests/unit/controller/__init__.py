"""Tests of modelium.controller."""
