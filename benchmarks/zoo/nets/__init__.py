"""The nets of the zoo, each a function `Store -> Net`."""
