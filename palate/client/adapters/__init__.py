"""Reward functions for other trainers; each module speaks one trainer's call, and imports nothing of it."""
