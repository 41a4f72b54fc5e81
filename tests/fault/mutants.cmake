# One line a mutant: its name, the source that is broken, the programs that are built with it.
# H, the simulation
add_mutant(position-outside-transaction server/kafka_sink.c simulate)
add_mutant(position-read-to-stable-offset server/kafka_sink.c simulate)
add_mutant(producer-kept-after-abort server/kafka_sink.c simulate)
add_mutant(producer-kept-after-doubt server/kafka_sink.c simulate)
add_mutant(doubt-believed server/publisher_machine.c simulate)
add_mutant(position-not-read server/publisher.c simulate)
add_mutant(position-not-confirmed server/publisher.c simulate)
add_mutant(first-event-blamed server/publisher_machine.c simulate)
add_mutant(dead-letter-late server/publisher.c simulate)
add_mutant(clone-out-of-sight server/publisher.c simulate)
