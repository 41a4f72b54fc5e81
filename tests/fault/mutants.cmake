# One line a mutant: its name, the source that is broken, the programs that are built with it.
