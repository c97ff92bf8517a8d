package upstream

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"hanmo/hanmov1"
)

type emptyModels struct {
	hanmov1.UnimplementedModelsServer
}

func (emptyModels) ListModels(context.Context, *hanmov1.ListModelsRequest) (*hanmov1.ListModelsResponse, error) {
	return &hanmov1.ListModelsResponse{}, nil
}

// listed calls the target; `wait` lets the call wait for a server that takes it.
func listed(t *testing.T, target string, wait bool) error {
	t.Helper()
	connection, err := Dial(target, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = hanmov1.NewModelsClient(connection).ListModels(ctx, &hanmov1.ListModelsRequest{}, grpc.WaitForReady(wait))
	return err
}

func TestOfSeveralServersThoseWellAreCalled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, well := grpc.NewServer(), health.NewServer()
	hanmov1.RegisterModelsServer(server, emptyModels{})
	healthpb.RegisterHealthServer(server, well)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	several, one := "dns:///"+listener.Addr().String(), listener.Addr().String()
	if err := listed(t, several, true); err != nil {
		t.Error(err)
	}
	well.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if err := listed(t, several, false); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	// It may drain, and accepts calls until it says otherwise.
	if err := listed(t, one, true); err != nil {
		t.Error(err)
	}
}
