"""Single reward models and ensembles under pressure: best of n and PPO, with labels of which a quarter is wrong."""
