# One line a mutant: its name, the source that is broken, the programs that are built with it.

# A and D: the storage library under power cuts and injected errors
add_mutant(sync-off storage/store_db.c store_worker)
add_mutant(failed-sync-ignored storage/store_db.c store_worker)
add_mutant(acked-before-sync storage/committer.c store_worker)
add_mutant(visible-before-sync storage/committer.c store_worker)
add_mutant(evidence-before-sync storage/committer.c store_worker)
add_mutant(ids-unchecked storage/group.c store_worker ingestd) # B too
add_mutant(folder-unsynced storage/folder.c store_worker)
add_mutant(torn-tail-kept storage/wal_check.c store_worker)

# E: the disk is full
add_mutant(ack-without-room storage/group.c ingestd)
add_mutant(ack-of-a-failed-write storage/committer.c ingestd)
add_mutant(no-reserve storage/group.c ingestd)

# F: damaged files
add_mutant(damage-is-torn-tail storage/wal_check.c corruptible ingestctl)
add_mutant(evidence-ignored storage/recovery.c corruptible ingestctl)
add_mutant(loss-uncounted storage/survey.c corruptible ingestctl)
add_mutant(sequence-given-twice storage/survey.c corruptible ingestctl)

# B, C, G: the whole server on real Kafka; some of H's are caught there too
add_mutant(contradiction-ignored server/publisher_machine.c ingestd)

# H: the simulation
add_mutant(position-outside-transaction server/kafka_sink.c simulate)
add_mutant(position-read-to-stable-offset server/kafka_position.c simulate)
add_mutant(position-not-read server/publisher.c simulate)
add_mutant(position-not-confirmed server/publisher.c simulate)
add_mutant(producer-kept-after-abort server/kafka_sink.c simulate)
add_mutant(producer-kept-after-doubt server/kafka_sink.c simulate ingestd)
add_mutant(doubt-believed server/publisher_machine.c simulate ingestd)
add_mutant(first-event-blamed server/publisher_machine.c simulate)
add_mutant(dead-letter-late server/publisher.c simulate)
add_mutant(clone-out-of-sight server/publisher.c simulate)

# I: the store of failed events
add_mutant(failed-events-unsynced storage/failed_db.c failed_worker)
add_mutant(failed-counters-apart storage/failed_store.c failed_worker)

# J: the consumer
add_mutant(marks-not-awaited client/consumer/running.c consumer_driver)
add_mutant(progress-not-read client/consumer/partitions.c consumer_driver)
add_mutant(identities-not-read-back client/consumer/partitions.c consumer_driver)
