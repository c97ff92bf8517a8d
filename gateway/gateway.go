package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	json "hanmo/gateway/hanmov1"
	"hanmo/gateway/internal/openai"
	"hanmo/gateway/internal/upstream"
	"hanmo/hanmov1"
)

//go:embed openapi.yaml
var openAPI []byte

const probeTimeout = time.Second

// gateway answers HTTP requests by calls to hanmo-server.
type gateway struct {
	options  *options
	mux      *http.ServeMux
	health   healthpb.HealthClient
	metrics  *metrics
	draining atomic.Bool
}

func newGateway(o *options, connection grpc.ClientConnInterface) (*gateway, error) {
	g := &gateway{options: o, mux: http.NewServeMux(), health: healthpb.NewHealthClient(connection),
		metrics: newMetrics(o.upstreamMetrics)}
	generation := upstream.Generation{GenerationClient: hanmov1.NewGenerationClient(connection)}
	models := hanmov1.NewModelsClient(connection)
	openai.New(generation, models).Register(g.mux)
	if err := g.registerOwn(generation, models); err != nil {
		return nil, err
	}
	g.mux.HandleFunc("GET /health", g.serveHealth)
	g.mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "live\n")
	})
	g.mux.HandleFunc("GET /metrics", g.metrics.serve)
	g.mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI)
	})
	return g, nil
}

// registerOwn adds hanmo's own calls. Each has a pattern of its own, which metrics show.
func (g *gateway) registerOwn(generation hanmov1.GenerationClient, models hanmov1.ModelsClient) error {
	own := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			md := upstream.Metadata(r)
			md.Delete("authorization") // the library adds it by itself
			return md
		}),
		runtime.WithOutgoingHeaderMatcher(func(key string) (string, bool) {
			return "X-Request-Id", key == "x-request-id"
		}),
		runtime.WithErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, marshaler runtime.Marshaler,
			w http.ResponseWriter, r *http.Request, err error) {
			upstream.SetRetryAfter(w.Header(), status.Convert(err))
			runtime.DefaultHTTPErrorHandler(ctx, mux, marshaler, w, r, err)
		}),
	)
	ctx := context.Background()
	if err := json.RegisterGenerationHandlerClient(ctx, own, generation); err != nil {
		return err
	}
	if err := json.RegisterModelsHandlerClient(ctx, own, models); err != nil {
		return err
	}
	for _, pattern := range []string{
		"POST /hanmo/v1/generate", "POST /hanmo/v1/generate:stream", "POST /hanmo/v1/tokenize",
		"POST /hanmo/v1/detokenize", "POST /hanmo/v1/requests/{call}", "GET /hanmo/v1/models",
		"GET /hanmo/v1/models/{name}",
	} {
		g.mux.Handle(pattern, own)
	}
	return nil
}

// ServeHTTP checks what all requests have in common.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := g.mux.Handler(r)
	answer, done := g.metrics.observe(w, pattern)
	defer done()
	if pattern == "" {
		refuse(answer, handler, r)
		return
	}
	ctx := r.Context()
	if limit, err := g.timeout(r); err != nil {
		fail(answer, r, err)
		return
	} else if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	r = r.WithContext(ctx)
	if r.Method == http.MethodPost {
		// A web page of another origin could send any other type unasked.
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
			fail(answer, r, openai.NewError(http.StatusUnsupportedMediaType, "unsupported_media_type", "",
				"the Content-Type must be application/json"))
			return
		}
		body, ok := g.readBody(answer, r)
		if !ok {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	g.mux.ServeHTTP(answer, r)
}

// readBody takes the whole body in, so that a slow client holds nothing but its connection.
func (g *gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.options.maxRequestBytes))
	if err != nil {
		fail(w, r, openai.BodyError(err))
		return nil, false
	}
	return body, true
}

// fail answers in the words of the API that the path belongs to.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	var known *openai.Error
	if !strings.HasPrefix(r.URL.Path, "/hanmo/") || !errors.As(err, &known) {
		openai.WriteError(w, err)
		return
	}
	code := codes.InvalidArgument
	switch known.Status {
	case http.StatusNotFound:
		code = codes.NotFound
	case http.StatusMethodNotAllowed:
		code = codes.Unimplemented
	}
	body, _ := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(status.New(code, known.Body.Message).Proto())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(known.Status)
	_, _ = w.Write(body)
}

// timeout of a request; 0 is none.
func (g *gateway) timeout(r *http.Request) (time.Duration, error) {
	limit := g.options.requestTimeout
	text := r.Header.Get("X-Request-Timeout")
	if text == "" {
		return limit, nil
	}
	asked, err := time.ParseDuration(text)
	if seconds, plain := strconv.ParseFloat(text, 64); plain == nil {
		asked, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || asked <= 0 {
		return 0, openai.NewError(http.StatusBadRequest, "invalid_value", "X-Request-Timeout",
			"X-Request-Timeout: must be seconds above 0, or have a unit as in 500ms")
	}
	if limit > 0 {
		asked = min(asked, limit)
	}
	return asked, nil
}

// refuse answers in JSON what `handler` answers to a path or method that does not exist.
func refuse(w http.ResponseWriter, handler http.Handler, r *http.Request) {
	said := &headersOnly{header: http.Header{}}
	handler.ServeHTTP(said, r)
	if where := said.header.Get("Location"); where != "" {
		w.Header().Set("Location", where)
		w.WriteHeader(said.status)
		return
	}
	message := "there is no " + r.URL.Path
	if allowed := said.header.Get("Allow"); allowed != "" {
		w.Header().Set("Allow", allowed)
		message = r.URL.Path + " takes " + allowed
	}
	fail(w, r, openai.NewError(said.status, "unknown_url", "", message))
}

type headersOnly struct {
	header http.Header
	status int
}

func (h *headersOnly) Header() http.Header         { return h.header }
func (h *headersOnly) WriteHeader(status int)      { h.status = status }
func (h *headersOnly) Write(b []byte) (int, error) { return len(b), nil }

// serveHealth tells whether requests are welcome here and at hanmo-server.
func (g *gateway) serveHealth(w http.ResponseWriter, r *http.Request) {
	state, code := "draining", http.StatusServiceUnavailable
	if !g.draining.Load() {
		ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
		defer cancel()
		reply, err := g.health.Check(ctx, &healthpb.HealthCheckRequest{})
		switch {
		case err != nil:
			state = status.Convert(err).Message()
		case reply.Status == healthpb.HealthCheckResponse_SERVING:
			state, code = "serving", http.StatusOK
		default:
			state = "not serving"
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, state+"\n")
}
