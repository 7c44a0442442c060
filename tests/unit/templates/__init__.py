"""Tests of repository_templates/."""
