"""The embedded base model and its sample characters: what makes every part run offline."""
