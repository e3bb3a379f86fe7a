"""What is deployed: the reward service, the policy service, and what both stand on."""
