"""Repeatable measurements, each a ratio of two ways of doing the same work in the same run; `make bench`."""
