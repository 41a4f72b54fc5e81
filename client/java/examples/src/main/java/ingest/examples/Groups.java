package ingest.examples;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import ingest.v1.Event;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/**
 * Makes events of records. On a route that is split, each operation of a transaction is a record of its own, with the
 * headers ce_groupid, ce_groupindex and ce_groupsize; they become visible one topic after the other, so the first ones
 * wait here for the rest. Any other record is a whole event.
 *
 * <p>Events of one key come out in the order of their sequence, as far as the topics that they share tell it.
 *
 * <p>What waits here is in memory only: see {@link #cut} for how far a consumer may commit. Not thread-safe.
 */
final class Groups {
    /** One event and the records that it came in. */
    static final class Group {
        private final int size;
        private final long sequence;
        private final SortedMap<Integer, ConsumerRecord<byte[], byte[]>> parts = new TreeMap<>();
        private boolean givenUp;
        private boolean out;

        private Group(int size, long sequence) {
            this.size = size;
            this.sequence = sequence;
        }

        String id() {
            ConsumerRecord<byte[], byte[]> any = parts.get(parts.firstKey());
            return header(any, isPart(any) ? "ce_groupid" : "ce_id");
        }

        /** How many of its records are here, and how many there are. */
        String progress() {
            return parts.size() + " of " + size;
        }

        int size() {
            return size;
        }

        /** False only of one that was given up. */
        boolean whole() {
            return parts.size() == size;
        }

        /** The event as it was sent: with all its operations, in their order. */
        Event event() throws InvalidProtocolBufferException {
            Event.Builder event = null;
            for (ConsumerRecord<byte[], byte[]> part : parts.values()) {
                Event decoded = decode(part);
                if (event == null) {
                    event = decoded.toBuilder();
                } else {
                    event.getTransactionBuilder().addAllOperations(decoded.getTransaction().getOperationsList());
                }
            }
            return event.build();
        }
    }

    private final Map<String, Group> known = new HashMap<>();
    private final Map<String, PriorityQueue<Group>> waiting = new HashMap<>(); // by key, the oldest first

    /** Takes a record in; the groups that can be processed now, in their order. */
    List<Group> add(ConsumerRecord<byte[], byte[]> record) {
        boolean split = isPart(record);
        int size = split ? Integer.parseInt(header(record, "ce_groupsize")) : 1;
        int index = split ? Integer.parseInt(header(record, "ce_groupindex")) : 0;
        long sequence = Long.parseLong(header(record, "ce_sequence"));
        if (!split) {
            Group alone = new Group(size, sequence);
            alone.parts.put(index, record);
            return List.of(alone);
        }
        // The store and its sequence, too: the same id may come back once the server has forgotten it.
        String identity = String.join("\n", header(record, "ce_storeid"), header(record, "ce_sequence"),
                header(record, "ce_source"), header(record, "ce_groupid"));
        String key = header(record, "ce_storeid") + "\n" + new String(record.key(), StandardCharsets.UTF_8);
        PriorityQueue<Group> queue = waiting.computeIfAbsent(
                key, any -> new PriorityQueue<>(Comparator.comparingLong((Group group) -> group.sequence)));
        Group group = known.computeIfAbsent(identity, any -> {
            Group fresh = new Group(size, sequence);
            queue.add(fresh);
            return fresh;
        });
        group.parts.put(index, record);

        return takeReady(key);
    }

    private List<Group> takeReady(String key) {
        List<Group> ready = new ArrayList<>();
        PriorityQueue<Group> queue = waiting.get(key);
        while (!queue.isEmpty() && (queue.peek().whole() || queue.peek().givenUp)) {
            Group first = queue.poll();
            first.out = true;
            ready.add(first);
        }
        if (queue.isEmpty()) {
            waiting.remove(key);
        }
        return ready;
    }

    /**
     * Waits no longer for groups that have a record from before this time, because the topics do not keep the others so
     * long; a reader that begins at a topic's oldest records meets such. They come out, and those that they held up.
     */
    List<Group> giveUp(long beforeMs) {
        List<Group> ready = new ArrayList<>();
        for (String key : List.copyOf(waiting.keySet())) {
            for (Group group : waiting.get(key)) {
                group.givenUp = group.parts.values().stream().anyMatch(part -> part.timestamp() < beforeMs);
            }
            ready.addAll(takeReady(key));
        }
        return ready;
    }

    /**
     * The offsets to commit, once all groups that came out are processed; `read` is how far the partitions were read. Of
     * each group either all records are before them or all are behind: were only one behind, it would be read again
     * after a restart and wait for ever.
     */
    Map<TopicPartition, Long> cut(Map<TopicPartition, Long> read) {
        Map<TopicPartition, Long> cut = new HashMap<>(read);
        boolean lowered;
        do {
            lowered = false;
            for (Group group : known.values()) {
                if (group.out && group.parts.values().stream().allMatch(part -> isBefore(cut, part))) {
                    continue;
                }
                for (ConsumerRecord<byte[], byte[]> part : group.parts.values()) {
                    if (isBefore(cut, part)) {
                        cut.put(partition(part), part.offset());
                        lowered = true;
                    }
                }
            }
        } while (lowered);
        known.values().removeIf(group -> group.out && group.parts.values().stream().allMatch(part -> isBefore(cut, part)));
        return cut;
    }

    /** Those of which records are missing so far. */
    List<Group> incomplete() {
        return waiting.values().stream()
                .flatMap(PriorityQueue::stream)
                .filter(group -> !group.whole())
                .collect(Collectors.toList());
    }

    /** Forgets all; the records will be read again. */
    void clear() {
        known.clear();
        waiting.clear();
    }

    private static boolean isBefore(Map<TopicPartition, Long> cut, ConsumerRecord<byte[], byte[]> record) {
        return record.offset() < cut.get(partition(record));
    }

    private static TopicPartition partition(ConsumerRecord<byte[], byte[]> record) {
        return new TopicPartition(record.topic(), record.partition());
    }

    private static Event decode(ConsumerRecord<byte[], byte[]> record) throws InvalidProtocolBufferException {
        if (!header(record, "content-type").equals("application/json")) {
            return Event.parseFrom(record.value());
        }
        Event.Builder event = Event.newBuilder();
        JsonFormat.parser().ignoringUnknownFields().merge(new String(record.value(), StandardCharsets.UTF_8), event);
        return event.build();
    }

    private static boolean isPart(ConsumerRecord<byte[], byte[]> record) {
        return record.headers().lastHeader("ce_groupid") != null;
    }

    private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
        Header found = record.headers().lastHeader(name);
        if (found == null) {
            throw new IllegalArgumentException("no " + name + " in " + record.topic() + " at " + record.offset());
        }
        return new String(found.value(), StandardCharsets.UTF_8);
    }
}
