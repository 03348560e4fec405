"""Telling findings: each reporter is a pure function that returns text."""
