# One line a mutant: its name, the source that is broken, the programs that are built with it.
add_mutant(damage_is_torn_tail storage/wal_check.c corruptible ingestctl)
add_mutant(evidence_ignored storage/recovery.c corruptible ingestctl)
add_mutant(loss_uncounted storage/survey.c corruptible ingestctl)
add_mutant(manifest_may_shrink storage/manifest.c corruptible ingestctl)
add_mutant(sequence_given_twice storage/survey.c corruptible ingestctl)
