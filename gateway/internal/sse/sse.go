// Package sse writes server-sent events.
package sse

import (
	"bytes"
	"net/http"
)

// Writer sends each event at once. It is used by one goroutine.
type Writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Start sends the headers of a stream with status 200.
func Start(w http.ResponseWriter) *Writer {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Accel-Buffering", "no") // nginx would collect events
	w.WriteHeader(http.StatusOK)
	return &Writer{w: w, control: http.NewResponseController(w)}
}

// Send writes one event of one line of data; without a name it is a "message". An error means that
// the client has left.
func (s *Writer) Send(name string, data []byte) error {
	var event bytes.Buffer
	if name != "" {
		event.WriteString("event: " + name + "\n")
	}
	event.WriteString("data: ")
	event.Write(data)
	event.WriteString("\n\n")
	return s.write(event.Bytes())
}

// Comment writes what clients skip: it tells proxies that the stream is alive.
func (s *Writer) Comment(text string) error { return s.write([]byte(": " + text + "\n\n")) }

func (s *Writer) write(data []byte) error {
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.control.Flush()
}
