"""The demo: a server that trains sample characters for two tenants, and the images before and after."""
