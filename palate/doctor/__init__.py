"""`palate doctor`: asks every replica of a deployment how it is, and says what is wrong and what to do."""
