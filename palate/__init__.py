"""Palate: reward models served, trained and audited, and policies trained against them, over gRPC."""
