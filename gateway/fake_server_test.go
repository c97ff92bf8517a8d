package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"hanmo/hanmov1"
)

// fakeServer stands in for hanmo-server. Tests say what its calls answer.
type fakeServer struct {
	hanmov1.UnimplementedGenerationServer
	hanmov1.UnimplementedModelsServer
	health   *health.Server
	generate func(context.Context, *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error)
	stream   func(*hanmov1.GenerateRequest, grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error
	request  *hanmov1.GenerateRequest // the last one
	metadata metadata.MD
}

func (f *fakeServer) Generate(ctx context.Context, r *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error) {
	f.request = r
	f.metadata, _ = metadata.FromIncomingContext(ctx)
	return f.generate(ctx, r)
}

func (f *fakeServer) GenerateStream(r *hanmov1.GenerateRequest,
	out grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
	f.request = r
	f.metadata, _ = metadata.FromIncomingContext(out.Context())
	return f.stream(r, out)
}

// Detokenize knows the bytes of one character as tokens 1 to 3.
func (f *fakeServer) Detokenize(_ context.Context, r *hanmov1.DetokenizeRequest) (*hanmov1.DetokenizeResponse, error) {
	reply := &hanmov1.DetokenizeResponse{}
	for _, id := range r.Ids {
		reply.Pieces = append(reply.Pieces, []byte("山")[id-1:id])
	}
	return reply, nil
}

func (f *fakeServer) ListModels(context.Context, *hanmov1.ListModelsRequest) (*hanmov1.ListModelsResponse, error) {
	return &hanmov1.ListModelsResponse{Models: []*hanmov1.ModelSummary{
		{Name: "broken", State: hanmov1.ModelState_MODEL_STATE_FAILED},
		{Name: "poet", State: hanmov1.ModelState_MODEL_STATE_READY},
	}}, nil
}

func (f *fakeServer) DescribeModel(_ context.Context, r *hanmov1.DescribeModelRequest) (*hanmov1.DescribeModelResponse, error) {
	if r.Name != "painter" {
		return nil, status.Errorf(codes.NotFound, "no model %q", r.Name)
	}
	return &hanmov1.DescribeModelResponse{Name: r.Name, Picture: &hanmov1.PictureModel{DefaultSteps: 20}}, nil
}

// start runs a gateway in front of `f` until the test ends; arguments are flags.
func (f *fakeServer) start(t *testing.T, arguments ...string) *httptest.Server {
	t.Helper()
	o, err := parseOptions(arguments, func(string) (string, bool) { return "", false }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	hanmov1.RegisterGenerationServer(server, f)
	hanmov1.RegisterModelsServer(server, f)
	f.health = health.NewServer()
	healthpb.RegisterHealthServer(server, f.health)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///fake",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	g, err := newGateway(o, connection)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	return front
}

type reply struct {
	status int
	header http.Header
	body   string
}

// post sends JSON; headers are pairs.
func post(t *testing.T, front *httptest.Server, path, body string, headers ...string) reply {
	t.Helper()
	return call(t, front, http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

func call(t *testing.T, front *httptest.Server, method, path, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequest(method, front.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	got, err := front.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	data, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{got.StatusCode, got.Header, string(data)}
}
