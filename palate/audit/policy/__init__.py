"""The audit of a policy: what it says, asked for over the wire, perhaps beside what it said before its training."""
