"""The three phases of RLHF on a simulated world, through real services, in minutes on two cores."""
