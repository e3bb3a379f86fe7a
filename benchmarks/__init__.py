"""Repeatable measurements, each a ratio of ways of doing the same work in the same run; `make bench`, `make peers`."""
