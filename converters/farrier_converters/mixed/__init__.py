"""Mixed precision: what each layer costs in each precision, measured once, and the best choice for a limit."""
