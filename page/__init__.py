"""How people see a model think: the page. It knows the events of `reasoning`, no model."""
