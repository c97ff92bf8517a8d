// Package upstream is what the gateway knows of hanmo-server: the connection, which headers go with
// a call, and what its errors mean in HTTP.
package upstream

import (
	"context"
	"crypto/tls"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // heeds healthCheckConfig
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"hanmo/hanmov1"
)

// Every address of a headless Service that says it is well gets its share of the calls, one with a full
// queue included: it says when to try again. Nothing is retried here: the client is told when to.
const healthyInTurns = `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`

// A single address gets calls as long as it accepts them, which a draining server does for a while.
const inTurns = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// Dial connects to a gRPC target at the first call; without TLS where `secure` is nil.
func Dial(target string, secure *tls.Config, maxResponseBytes int) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if secure != nil {
		transport = credentials.NewTLS(secure)
	}
	serviceConfig := inTurns
	if strings.HasPrefix(target, "dns:") {
		serviceConfig = healthyInTurns
	}
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithUserAgent("hanmo-gateway"))
}

// The headers that become metadata of the call. X-Tenant and X-Request-Id also become fields of the
// request.
var forwarded = []string{"Authorization", "X-Tenant", "X-Request-Id", "Traceparent", "Tracestate",
	"Baggage"}

// Metadata of a call made for `r`.
func Metadata(r *http.Request) metadata.MD {
	md := metadata.MD{}
	for _, name := range forwarded {
		md.Append(name, r.Header.Values(name)...)
	}
	return md
}

// BadHeader is the name of a header whose value can't be metadata, which is printable ASCII; empty
// where there is none.
func BadHeader(r *http.Request) string {
	// The library passes these two on by itself.
	for _, name := range append([]string{"X-Forwarded-For", "X-Forwarded-Host"}, forwarded...) {
		for _, value := range r.Header.Values(name) {
			if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
				return name
			}
		}
	}
	return ""
}

// Generation fills in what the headers of the HTTP request said.
type Generation struct{ hanmov1.GenerationClient }

// Generate is the call of that name.
func (g Generation) Generate(ctx context.Context, request *hanmov1.GenerateRequest,
	options ...grpc.CallOption) (*hanmov1.GenerateResponse, error) {
	return g.GenerationClient.Generate(ctx, withHeaders(ctx, request), options...)
}

// GenerateStream is the call of that name.
func (g Generation) GenerateStream(ctx context.Context, request *hanmov1.GenerateRequest,
	options ...grpc.CallOption) (grpc.ServerStreamingClient[hanmov1.GenerateStreamResponse], error) {
	return g.GenerationClient.GenerateStream(ctx, withHeaders(ctx, request), options...)
}

// The tenant of a header goes before that of the body: a proxy that knows who calls sets the header,
// the body is the client's own word. A request id of the body is the more deliberate one.
func withHeaders(ctx context.Context, request *hanmov1.GenerateRequest) *hanmov1.GenerateRequest {
	md, _ := metadata.FromOutgoingContext(ctx)
	tenant, id := md.Get("x-tenant"), md.Get("x-request-id")
	if len(tenant) == 0 && (len(id) == 0 || request.RequestId != "") {
		return request
	}
	request = proto.CloneOf(request)
	if len(tenant) > 0 {
		request.Tenant = tenant[0]
	}
	if len(id) > 0 && request.RequestId == "" {
		request.RequestId = id[0]
	}
	return request
}

// HTTPStatus of a gRPC status.
func HTTPStatus(s *status.Status) int { return runtime.HTTPStatusFromCode(s.Code()) }

// SetRetryAfter tells when the call may be tried again, where that can help.
func SetRetryAfter(header http.Header, s *status.Status) {
	if s.Code() != codes.ResourceExhausted && s.Code() != codes.Unavailable {
		return
	}
	delay := time.Second
	for _, detail := range s.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			delay = retry.GetRetryDelay().AsDuration()
		}
	}
	header.Set("Retry-After", strconv.Itoa(int(math.Ceil(delay.Seconds()))))
	// The header counts whole seconds; OpenAI's clients read this one first.
	header.Set("Retry-After-Ms", strconv.FormatInt(delay.Milliseconds(), 10))
}

// Violations of a BadRequest: what is wrong with which field.
func Violations(s *status.Status) []*errdetails.BadRequest_FieldViolation {
	for _, detail := range s.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			return bad.GetFieldViolations()
		}
	}
	return nil
}
