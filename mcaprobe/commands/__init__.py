"""What can be typed after `mcaprobe`? One file for each command: parse, call one function, say where the result is."""
