"""What is proved, in the order in which it runs. Each has ALL: names and functions of a lab."""
