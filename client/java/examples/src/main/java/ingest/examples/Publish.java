package ingest.examples;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.ListValue;
import com.google.protobuf.Message;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import ingest.v1.Event;
import ingest.v1.GetEventStatusRequest;
import ingest.v1.IngestServiceGrpc;
import ingest.v1.Operation;
import ingest.v1.PublishBatchRequest;
import ingest.v1.PublishRequest;
import ingest.v1.PublishResponse;
import ingest.v1.PublishResult;
import ingest.v1.PublishStreamResponse;
import ingest.v1.Transaction;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;

/**
 * Publishes events: {@code Publish TARGET unary|batch|stream|status ID...}
 *
 * <p>Each ID is a user who signs up: an event whose two operations belong together. It is sent by one call each, by one
 * call for all, or by a stream; {@code status} tells where it is.
 *
 * <p>An event has an id of its own, and is sent again with it until the server has answered, for a minute: so it is
 * neither lost nor doubled. Events are sent again together: where the order of a key matters, wait for one before
 * sending the next.
 */
public final class Publish {
    private static final String SOURCE = "shop";
    private static final Set<Integer> AGAIN =
            Set.of(Code.UNAVAILABLE_VALUE, Code.DEADLINE_EXCEEDED_VALUE, Code.RESOURCE_EXHAUSTED_VALUE, Code.ABORTED_VALUE);
    private static final long TRY_S = 10;
    private static final long GIVE_UP_S = 60;

    /** A way to send: adds a result for each event, in their order; throws when the call breaks. */
    private interface Way {
        void send(List<Event> events, List<PublishResult> results) throws InterruptedException;
    }

    private final ManagedChannel channel;

    private Publish(ManagedChannel channel) {
        this.channel = channel;
    }

    private static Event signUp(String user) {
        Struct roles = Struct.newBuilder()
                .putFields("name", text("User " + user))
                .putFields("roles", Value.newBuilder()
                        .setListValue(ListValue.newBuilder().addValues(text("learner")))
                        .build())
                .build();
        Struct org = Struct.newBuilder().putFields("org", text("everyone")).build();
        Transaction transaction = Transaction.newBuilder()
                .setName("create_user")
                .addOperations(Operation.newBuilder().setName("create_user").setEntityId(user).setData(roles))
                .addOperations(Operation.newBuilder().setName("add_user_to_org").setEntityId(user).setData(org))
                .build();
        return Event.newBuilder().setSource(SOURCE).setId(user).setKey(user).setTransaction(transaction).build();
    }

    private static Value text(String value) {
        return Value.newBuilder().setStringValue(value).build();
    }

    private IngestServiceGrpc.IngestServiceBlockingStub stub() {
        return IngestServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TRY_S, SECONDS);
    }

    private void unary(List<Event> events, List<PublishResult> results) {
        for (Event event : events) {
            PublishResult.Builder result = PublishResult.newBuilder();
            try {
                PublishRequest request = PublishRequest.newBuilder().setEvent(event).build();
                results.add(result.setResponse(stub().publish(request)).build());
            } catch (StatusRuntimeException error) {
                results.add(result.setError(StatusProto.fromThrowable(error)).build());
            }
        }
    }

    private void batch(List<Event> events, List<PublishResult> results) {
        PublishBatchRequest request = PublishBatchRequest.newBuilder().addAllEvents(events).build();
        results.addAll(stub().publishBatch(request).getResultsList());
    }

    private void stream(List<Event> events, List<PublishResult> results) throws InterruptedException {
        StreamOfEvents stream = new StreamOfEvents(events, results);
        IngestServiceGrpc.newStub(channel).withDeadlineAfter(TRY_S, SECONDS).publishStream(stream);
        stream.await();
    }

    /** Sends while the connection takes more, and collects what is answered meanwhile. */
    private static final class StreamOfEvents implements ClientResponseObserver<PublishRequest, PublishStreamResponse> {
        private final Iterator<Event> left;
        private final List<PublishResult> results;
        private final CountDownLatch ended = new CountDownLatch(1);
        private Throwable failure;

        StreamOfEvents(List<Event> events, List<PublishResult> results) {
            this.left = events.iterator();
            this.results = results;
        }

        @Override
        public void beforeStart(ClientCallStreamObserver<PublishRequest> requests) {
            requests.setOnReadyHandler(() -> {
                while (left.hasNext() && requests.isReady()) {
                    requests.onNext(PublishRequest.newBuilder().setEvent(left.next()).build());
                    if (!left.hasNext()) {
                        requests.onCompleted();
                    }
                }
            });
        }

        @Override
        public void onNext(PublishStreamResponse answer) {
            results.addAll(answer.getResultsList());
        }

        @Override
        public void onError(Throwable error) {
            failure = error;
            ended.countDown();
        }

        @Override
        public void onCompleted() {
            ended.countDown();
        }

        void await() throws InterruptedException {
            ended.await();
            if (failure != null) {
                throw io.grpc.Status.fromThrowable(failure).asRuntimeException(io.grpc.Status.trailersFromThrowable(failure));
            }
        }
    }

    /** A result for each event. Where the call broke, its status stands for those that were not answered. */
    private static List<PublishResult> attempt(Way way, List<Event> events) throws InterruptedException {
        List<PublishResult> results = new ArrayList<>();
        Status broken = Status.newBuilder().setCode(Code.UNAVAILABLE_VALUE).setMessage("the call ended early").build();
        try {
            way.send(events, results);
        } catch (StatusRuntimeException error) {
            broken = StatusProto.fromThrowable(error);
        }
        while (results.size() < events.size()) {
            results.add(PublishResult.newBuilder().setError(broken).build());
        }
        return results;
    }

    /** Sends the events until each is answered; how many were refused. */
    private static int publish(Way way, List<Event> events) throws InterruptedException {
        int refused = 0;
        long giveUp = System.nanoTime() + SECONDS.toNanos(GIVE_UP_S);
        for (long pauseMs = 100; !events.isEmpty(); pauseMs = Math.min(2 * pauseMs, 5000)) {
            boolean late = System.nanoTime() - giveUp > 0;
            List<PublishResult> results = attempt(way, events);
            List<Event> left = new ArrayList<>();
            long toldMs = 0;
            for (int i = 0; i < events.size(); i++) {
                PublishResult result = results.get(i);
                if (result.hasError() && AGAIN.contains(result.getError().getCode()) && !late) {
                    left.add(events.get(i));
                    toldMs = Math.max(toldMs, toldMs(result.getError()));
                } else {
                    refused += result.hasError() ? 1 : 0;
                    System.out.println(events.get(i).getId() + ": " + describe(result));
                }
            }
            events = left;
            if (!events.isEmpty()) {
                MILLISECONDS.sleep(Math.max(pauseMs, toldMs));
            }
        }
        return refused;
    }

    private static String describe(PublishResult result) {
        if (result.hasError()) {
            return Code.forNumber(result.getError().getCode()) + " " + reason(result.getError());
        }
        PublishResponse stored = result.getResponse();
        return (stored.getDuplicate() ? "duplicate of " : "stored as ") + stored.getRoute() + " " + stored.getSequence();
    }

    /** The fields that are wrong, when the status names them. */
    private static String reason(Status status) {
        String wrong = details(status, BadRequest.class).stream()
                .flatMap(bad -> bad.getFieldViolationsList().stream())
                .map(each -> each.getField() + ": " + each.getDescription())
                .collect(Collectors.joining("; "));
        return wrong.isEmpty() ? status.getMessage() : wrong;
    }

    /** When to come again, as the server says; 0 when it says nothing. */
    private static long toldMs(Status status) {
        return details(status, RetryInfo.class).stream()
                .mapToLong(hint -> Durations.toMillis(hint.getRetryDelay()))
                .max()
                .orElse(0);
    }

    private static <T extends Message> List<T> details(Status status, Class<T> kind) {
        List<T> found = new ArrayList<>();
        for (Any packed : status.getDetailsList()) {
            if (packed.is(kind)) {
                try {
                    found.add(packed.unpack(kind));
                } catch (InvalidProtocolBufferException error) {
                    throw new IllegalArgumentException(error);
                }
            }
        }
        return found;
    }

    private int tellStatus(List<String> ids) {
        for (String id : ids) {
            GetEventStatusRequest request = GetEventStatusRequest.newBuilder().setSource(SOURCE).setId(id).build();
            String state = stub().getEventStatus(request).getState().name();
            System.out.println(id + ": " + state.substring("EVENT_STATE_".length()));
        }
        return 0;
    }

    private int run(String what, List<String> ids) throws InterruptedException {
        List<Event> events = ids.stream().map(Publish::signUp).collect(Collectors.toList());
        switch (what) {
            case "unary":
                return publish(this::unary, events);
            case "batch":
                return publish(this::batch, events);
            case "stream":
                return publish(this::stream, events);
            case "status":
                return tellStatus(ids);
            default:
                throw new IllegalArgumentException(what + " is none of unary, batch, stream, status");
        }
    }

    public static void main(String[] args) throws InterruptedException {
        if (args.length < 3) {
            System.err.println("usage: Publish TARGET unary|batch|stream|status ID...");
            System.exit(2);
        }
        // With TLS: TlsChannelCredentials.
        ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
        int refused = new Publish(channel).run(args[1], List.of(args).subList(2, args.length));
        channel.shutdownNow();
        System.exit(refused > 0 ? 1 : 0);
    }
}
