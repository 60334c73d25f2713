"""What a processor is made of: the statistics of training trials, their file, the options, the patterns of a call."""
