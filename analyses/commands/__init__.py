"""One file per subcommand; each has `add(subparsers)` and a function of the parsed arguments."""
