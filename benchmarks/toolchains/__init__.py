"""From a model to what a toolchain delivers: import, check, fuse, build, again."""
