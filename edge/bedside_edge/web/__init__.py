"""Pages for people: server-rendered, readable without scripts, better with them."""
