"""What will run where on a target, and why not: predicted from rules, with no compiler and no engine."""
