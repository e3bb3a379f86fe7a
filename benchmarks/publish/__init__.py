"""What publishing weights makes of the machine, and what it costs those who sample meanwhile."""
