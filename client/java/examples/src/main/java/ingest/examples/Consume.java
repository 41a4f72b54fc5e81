package ingest.examples;

import com.google.protobuf.InvalidProtocolBufferException;
import ingest.v1.Event;
import ingest.v1.Operation;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads events as a service does: {@code Consume PROPERTIES TOPIC...}; a line for each event once it is whole, until
 * SIGTERM; one for each of which records are gone for good. The file has Kafka's settings for a consumer; the topics are all those of the routes that are read.
 *
 * <p>Kafka holds each event once for a reader of committed records, which is what isolation.level is for. After a
 * restart the last ones are read again: what is done for an event must be harmless when it is done twice, or be noted
 * under its source and id together with its effects.
 */
public final class Consume {
    private static final Duration COMMIT_EVERY = Duration.ofSeconds(1);
    private static final Duration RETENTION = Duration.ofDays(7); // the shortest retention.ms of the topics

    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Groups groups = new Groups();
    private final Map<TopicPartition, Long> read = new HashMap<>();
    private long committedAt = System.nanoTime();

    private Consume(Properties settings) {
        settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        settings.putIfAbsent(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        // Topics with as many partitions are dealt out alike, so that all parts of a group come to one consumer.
        settings.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, RangeAssignor.class.getName());
        consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** What the service is there for. */
    private static void process(Groups.Group group) throws InvalidProtocolBufferException {
        if (!group.whole()) {
            System.out.println("torn " + group.id() + ": " + group.progress());
            return;
        }
        Event event = group.event();
        String what = event.hasInformative()
                ? event.getInformative().getName()
                : event.getTransaction().getOperationsList().stream().map(Operation::getName).collect(Collectors.joining(", "));
        System.out.println(event.getId() + ": " + what + "; records: " + group.size());
    }

    private void run(List<String> topics) throws InvalidProtocolBufferException {
        consumer.subscribe(topics, new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                commit();
                forget();
            }

            @Override
            public void onPartitionsLost(Collection<TopicPartition> partitions) {
                forget();
            }
        });
        try (consumer) { // whose end commits
            while (true) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(COMMIT_EVERY)) {
                    for (Groups.Group group : groups.add(record)) {
                        process(group);
                    }
                    read.put(new TopicPartition(record.topic(), record.partition()), record.offset() + 1);
                }
                if (System.nanoTime() - committedAt > COMMIT_EVERY.toNanos()) {
                    giveUp();
                    commit();
                }
            }
        }
    }

    /** What retention has torn; not before all that is there was read. */
    private void giveUp() throws InvalidProtocolBufferException {
        if (consumer.assignment().stream().allMatch(partition -> consumer.currentLag(partition).orElse(1) == 0)) {
            for (Groups.Group group : groups.giveUp(System.currentTimeMillis() - RETENTION.toMillis())) {
                process(group);
            }
        }
    }

    private void commit() {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        groups.cut(read).forEach((partition, offset) -> offsets.put(partition, new OffsetAndMetadata(offset)));
        try {
            consumer.commitSync(offsets);
        } catch (CommitFailedException lost) {
            System.err.println("others have the partitions now, and read these records again");
        }
        committedAt = System.nanoTime();
    }

    /** The records from what is committed on will be read again, here or elsewhere. */
    private void forget() {
        groups.incomplete().forEach(each -> System.out.println("incomplete " + each.id() + ": " + each.progress()));
        groups.clear();
        read.clear();
    }

    public static void main(String[] args) throws IOException {
        if (args.length < 2) {
            System.err.println("usage: Consume PROPERTIES TOPIC...");
            System.exit(2);
        }
        Properties settings = new Properties();
        try (Reader file = Files.newBufferedReader(Path.of(args[0]))) {
            settings.load(file);
        }
        Consume consume = new Consume(settings);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consume.consumer.wakeup();
            try {
                main.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }));
        try {
            consume.run(List.of(args).subList(1, args.length));
        } catch (WakeupException stop) {
            System.out.println("stopped");
        }
    }
}
