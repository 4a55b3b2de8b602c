"""How a model is made to think, with no page, no server and no framework around it."""
