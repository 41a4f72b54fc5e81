# One line a mutant: its name, the source that is broken, the programs that are built with it.
add_mutant(ack-without-room storage/committer.c ingestd)
add_mutant(ack-of-a-failed-write storage/committer.c ingestd)
add_mutant(no-reserve storage/committer.c ingestd)
