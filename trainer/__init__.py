"""What learns: supervised fine-tuning, reward models, PPO; a client of the services."""
