"""What the trainer makes of its time and of the services."""
