"""How many GPUs so many people need, on paper: a queue is simulated, no model is asked."""
