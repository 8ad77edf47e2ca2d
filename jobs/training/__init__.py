"""One training in its folder, and several of them."""
