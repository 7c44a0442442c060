"""Tests of modelium.watcher."""
