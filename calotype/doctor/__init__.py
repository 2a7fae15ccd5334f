"""`calotype doctor`: what may stand in the way here, and what to do about it. Nothing needs the network."""
