// Package hanmov1 has the generated handlers of hanmo's own calls as JSON over HTTP.
package hanmov1

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"hanmo/gateway/internal/sse"
)

// Streams are server-sent events instead of the library's lines of {"result": ...}.
func init() { forward_Generation_GenerateStream_0 = forwardEvents }

// The first event is awaited before the headers, so that a refused request gets its own HTTP status.
func forwardEvents(ctx context.Context, mux *runtime.ServeMux, marshaler runtime.Marshaler,
	w http.ResponseWriter, r *http.Request, recv func() (proto.Message, error),
	_ ...func(context.Context, http.ResponseWriter, proto.Message) error) {
	message, err := recv()
	if err != nil {
		runtime.HTTPError(ctx, mux, marshaler, w, r, err)
		return
	}
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok {
		for _, id := range md.HeaderMD.Get("x-request-id") {
			w.Header().Set("X-Request-Id", id)
		}
	}
	events := sse.Start(w)
	for ; err == nil; message, err = recv() {
		var data []byte
		if data, err = marshaler.Marshal(message); err != nil {
			break
		}
		if events.Send("", data) != nil {
			return // the client has left
		}
	}
	if errors.Is(err, io.EOF) {
		return
	}
	if data, err := marshaler.Marshal(status.Convert(err).Proto()); err == nil {
		_ = events.Send("error", data)
	}
}
