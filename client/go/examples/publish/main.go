// Publish publishes events:  publish TARGET unary|batch|stream|status ID...
//
// Each ID is a user who signs up: an event whose two operations belong together. It is sent by one call each, by one
// call for all, or by a stream; status tells where it is.
//
// An event has an id of its own, and is sent again with it until the server has answered, for a minute: so it is
// neither lost nor doubled. Events are sent again together: where the order of a key matters, wait for one before
// sending the next.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	ingest "ingest/v1"
)

const (
	source = "shop"
	try    = 10 * time.Second
	giveUp = time.Minute
)

func signUp(user string) *ingest.Event {
	return &ingest.Event{
		Source: source,
		Id:     user,
		Key:    user,
		Body: &ingest.Event_Transaction{Transaction: &ingest.Transaction{
			Name: "create_user",
			Operations: []*ingest.Operation{
				operation("create_user", user, map[string]any{"name": "User " + user, "roles": []any{"learner"}}),
				operation("add_user_to_org", user, map[string]any{"org": "everyone"}),
			},
		}},
	}
}

func operation(name, entity string, fields map[string]any) *ingest.Operation {
	data, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err) // a value that JSON does not have
	}
	return &ingest.Operation{Name: name, EntityId: entity, Payload: &ingest.Operation_Data{Data: data}}
}

// way is a way to send: the results of the events from the first on, and why there are no more.
type way func(ingest.IngestServiceClient, []*ingest.Event) ([]*ingest.PublishResult, error)

func unary(client ingest.IngestServiceClient, events []*ingest.Event) ([]*ingest.PublishResult, error) {
	var results []*ingest.PublishResult
	for _, event := range events {
		results = append(results, publishOne(client, event))
	}
	return results, nil
}

func publishOne(client ingest.IngestServiceClient, event *ingest.Event) *ingest.PublishResult {
	ctx, cancel := context.WithTimeout(context.Background(), try)
	defer cancel()
	answer, err := client.Publish(ctx, &ingest.PublishRequest{Event: event})
	if err != nil {
		return refusal(err)
	}
	return &ingest.PublishResult{Outcome: &ingest.PublishResult_Response{Response: answer}}
}

func batch(client ingest.IngestServiceClient, events []*ingest.Event) ([]*ingest.PublishResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), try)
	defer cancel()
	answer, err := client.PublishBatch(ctx, &ingest.PublishBatchRequest{Events: events})
	return answer.GetResults(), err
}

func stream(client ingest.IngestServiceClient, events []*ingest.Event) ([]*ingest.PublishResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), try)
	defer cancel()
	stream, err := client.PublishStream(ctx)
	if err != nil {
		return nil, err
	}
	go func() { // answers come meanwhile; Recv tells what broke
		for _, event := range events {
			if stream.Send(&ingest.PublishRequest{Event: event}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	var results []*ingest.PublishResult
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return results, nil
		} else if err != nil {
			return results, err
		}
		results = append(results, answer.GetResults()...)
	}
}

func refusal(err error) *ingest.PublishResult {
	return &ingest.PublishResult{Outcome: &ingest.PublishResult_Error{Error: status.Convert(err).Proto()}}
}

// attempt gives a result for each event. Where the call broke, its status stands for those that were not answered.
func attempt(send way, client ingest.IngestServiceClient, events []*ingest.Event) []*ingest.PublishResult {
	results, err := send(client, events)
	if err == nil {
		err = status.Error(codes.Unavailable, "the call ended early")
	}
	for len(results) < len(events) {
		results = append(results, refusal(err))
	}
	return results
}

// publish sends the events until each is answered, and says how many were refused.
func publish(send way, client ingest.IngestServiceClient, events []*ingest.Event) int {
	refused, pause, deadline := 0, 100*time.Millisecond, time.Now().Add(giveUp)
	for len(events) > 0 {
		late := time.Now().After(deadline)
		var left []*ingest.Event
		wait := pause
		for i, result := range attempt(send, client, events) {
			why := status.FromProto(result.GetError())
			if again(why.Code()) && !late {
				left = append(left, events[i])
				if told := retryDelay(why); told > wait {
					wait = told
				}
				continue
			}
			if result.GetResponse() == nil {
				refused++
			}
			fmt.Printf("%s: %s\n", events[i].Id, describe(result))
		}
		if events = left; len(events) > 0 {
			time.Sleep(wait)
		}
		if pause *= 2; pause > 5*time.Second {
			pause = 5 * time.Second
		}
	}
	return refused
}

func describe(result *ingest.PublishResult) string {
	answer := result.GetResponse()
	if answer == nil {
		why := status.FromProto(result.GetError())
		return fmt.Sprintf("%s %s", code.Code(why.Code()), reason(why))
	}
	if answer.Duplicate {
		return fmt.Sprintf("duplicate of %s %d", answer.Route, answer.Sequence)
	}
	return fmt.Sprintf("stored as %s %d", answer.Route, answer.Sequence)
}

func again(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	}
	return false
}

// retryDelay is when to come again, as the server says; 0 when it says nothing.
func retryDelay(why *status.Status) time.Duration {
	for _, detail := range why.Details() {
		if hint, ok := detail.(*errdetails.RetryInfo); ok {
			return hint.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// reason names the fields that are wrong, when the status does.
func reason(why *status.Status) string {
	var wrong []string
	for _, detail := range why.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, each := range bad.GetFieldViolations() {
				wrong = append(wrong, each.GetField()+": "+each.GetDescription())
			}
		}
	}
	if len(wrong) == 0 {
		return why.Message()
	}
	return strings.Join(wrong, "; ")
}

func tellStatus(client ingest.IngestServiceClient, ids []string) error {
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(context.Background(), try)
		answer, err := client.GetEventStatus(ctx, &ingest.GetEventStatusRequest{Source: source, Id: id})
		cancel()
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", id, strings.TrimPrefix(answer.State.String(), "EVENT_STATE_"))
	}
	return nil
}

func main() {
	log.SetFlags(0)
	ways := map[string]way{"unary": unary, "batch": batch, "stream": stream}
	if len(os.Args) < 4 || os.Args[2] != "status" && ways[os.Args[2]] == nil {
		log.Fatal("usage: publish TARGET unary|batch|stream|status ID...")
	}
	target, what, ids := os.Args[1], os.Args[2], os.Args[3:]
	// With TLS: credentials.NewTLS.
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	client := ingest.NewIngestServiceClient(connection)
	if what == "status" {
		if err := tellStatus(client, ids); err != nil {
			log.Fatal(err)
		}
		return
	}
	var events []*ingest.Event
	for _, id := range ids {
		events = append(events, signUp(id))
	}
	if publish(ways[what], client, events) > 0 {
		os.Exit(1)
	}
}
