"""TFLite files as plain data, without any runtime: what importers read, compilers write and checks look at."""
