"""Tests of the words that everybody shares."""
