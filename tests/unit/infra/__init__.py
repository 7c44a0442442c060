"""Tests of compose.yaml, infra/ and the images."""
