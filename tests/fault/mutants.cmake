# One line a mutant: its name, the source that is broken, the programs that are built with it.
# Stages A and D: the storage library under power cuts and injected errors.
add_mutant(sync_off storage/store_db.c store_worker)
add_mutant(failed_sync_ignored storage/store_db.c store_worker)
add_mutant(acked_before_sync storage/committer.c store_worker)
add_mutant(visible_before_sync storage/committer.c store_worker)
add_mutant(evidence_before_sync storage/committer.c store_worker)
add_mutant(ids_unchecked storage/committer.c store_worker ingestd)
add_mutant(folder_unsynced storage/folder.c store_worker)
add_mutant(torn_tail_kept storage/wal_check.c store_worker)
# B, C, G: the whole server on real Kafka. Some of H's are caught there too.
add_mutant(contradiction-ignored server/publisher_machine.c ingestd)
# H, the simulation
add_mutant(position-outside-transaction server/kafka_sink.c simulate)
add_mutant(position-read-to-stable-offset server/kafka_sink.c simulate)
add_mutant(producer-kept-after-abort server/kafka_sink.c simulate)
add_mutant(producer-kept-after-doubt server/kafka_sink.c simulate ingestd)
add_mutant(doubt-believed server/publisher_machine.c simulate ingestd)
add_mutant(position-not-read server/publisher.c simulate)
add_mutant(first-event-blamed server/publisher_machine.c simulate)
add_mutant(dead-letter-late server/publisher.c simulate)
add_mutant(ack-without-room storage/committer.c ingestd)
add_mutant(ack-of-a-failed-write storage/committer.c ingestd)
