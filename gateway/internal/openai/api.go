// Package openai offers hanmo's models under the paths and with the JSON of OpenAI's API: chat,
// completions, images and models.
package openai

import (
	"encoding/json"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	"hanmo/gateway/internal/sse"
	"hanmo/gateway/internal/upstream"
	"hanmo/hanmov1"
)

// API answers HTTP requests by calls to hanmo-server.
type API struct {
	generation hanmov1.GenerationClient
	models     hanmov1.ModelsClient
	started    time.Time
}

// New makes an API of the two services.
func New(generation hanmov1.GenerationClient, models hanmov1.ModelsClient) *API {
	return &API{generation: generation, models: models, started: time.Now()}
}

// Register adds the API's paths to `mux`.
func (a *API) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/chat/completions", serve(a.chat))
	mux.HandleFunc("POST /v1/completions", serve(a.completions))
	mux.HandleFunc("POST /v1/images/generations", serve(a.images))
	mux.HandleFunc("GET /v1/models", serve(a.listModels))
	mux.HandleFunc("GET /v1/models/{model}", serve(a.describeModel))
}

// serve answers with what `handle` returns: an error, where it has not answered itself.
func serve(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(metadata.NewOutgoingContext(r.Context(), upstream.Metadata(r)))
		if err := handle(w, r); err != nil {
			WriteError(w, err)
		}
	}
}

func writeJSON(w http.ResponseWriter, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // an error means that the client has left
	return nil
}

func setRequestID(w http.ResponseWriter, id string) {
	if id != "" {
		w.Header().Set("X-Request-Id", id)
	}
}

// A stream of one request: each of hanmo's events becomes any number of the client's.
type translator interface {
	// begin is called once with the request's id, before any event.
	begin(requestID string)
	// translate sends what an event means to the client.
	translate(event *hanmov1.GenerateStreamResponse, out *eventWriter) error
}

// stream runs the request. The first event is awaited before the headers are sent, so that a request
// that is refused gets its own HTTP status.
func (a *API) stream(w http.ResponseWriter, r *http.Request, request *hanmov1.GenerateRequest,
	names fieldNames, to translator) error {
	call, err := a.generation.GenerateStream(r.Context(), request)
	if err != nil {
		return fromStatus(err, names)
	}
	event, err := call.Recv()
	if err != nil {
		return fromStatus(err, names)
	}
	id := event.GetQueued().GetRequestId()
	setRequestID(w, id)
	to.begin(id)
	out := &eventWriter{events: sse.Start(w)}
	for ; err == nil; event, err = call.Recv() {
		if queued := event.GetQueued(); queued != nil {
			out.comment("queued behind " + itoa(queued.GetPosition()))
		} else if err = to.translate(event, out); err != nil {
			break
		}
		if out.failed != nil {
			return nil // the client has left; its context ends the call
		}
		if event.GetFinal() != nil {
			out.done()
			return nil
		}
	}
	out.send("error", map[string]any{"error": fromStatus(err, names).Body})
	return nil
}

// eventWriter keeps the first error, which means that the client has left.
type eventWriter struct {
	events *sse.Writer
	failed error
}

func (o *eventWriter) send(name string, value any) {
	data, err := json.Marshal(value)
	if err == nil && o.failed == nil {
		err = o.events.Send(name, data)
	}
	o.keep(err)
}

func (o *eventWriter) comment(text string) {
	if o.failed == nil {
		o.keep(o.events.Comment(text))
	}
}

func (o *eventWriter) done() {
	if o.failed == nil {
		o.keep(o.events.Send("", []byte("[DONE]")))
	}
}

func (o *eventWriter) keep(err error) {
	if o.failed == nil {
		o.failed = err
	}
}
