package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/expfmt"
)

const scrapeTimeout = 5 * time.Second

// metrics of the gateway; those of hanmo-server follow them in the same answer.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	running  prometheus.Gauge
	up       prometheus.Gauge
	upstream string
	client   http.Client
}

func newMetrics(upstream string) *metrics {
	registry := prometheus.NewRegistry()
	make := promauto.With(registry)
	m := &metrics{
		registry: registry,
		upstream: upstream,
		client:   http.Client{Timeout: scrapeTimeout},
		requests: make.NewCounterVec(prometheus.CounterOpts{Name: "hanmo_gateway_requests_total",
			Help: "HTTP requests by route and status; 499 is a client that left."}, []string{"route", "code"}),
		seconds: make.NewHistogramVec(prometheus.HistogramOpts{Name: "hanmo_gateway_request_seconds",
			Help:    "From an HTTP request's headers to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 16)}, []string{"route"}),
		running: make.NewGauge(prometheus.GaugeOpts{Name: "hanmo_gateway_requests_running",
			Help: "HTTP requests being answered."}),
	}
	if upstream != "" {
		m.up = make.NewGauge(prometheus.GaugeOpts{Name: "hanmo_gateway_upstream_metrics_up",
			Help: "Whether hanmo-server's metrics could be read: those below are its."})
	}
	return m
}

// observe counts an answer by its route, of which there are few.
func (m *metrics) observe(w http.ResponseWriter, route string) (*answer, func()) {
	if route == "" {
		route = "none"
	}
	began := time.Now()
	a := &answer{ResponseWriter: w, status: http.StatusOK}
	m.running.Inc()
	return a, func() {
		m.running.Dec()
		m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
		m.requests.WithLabelValues(route, strconv.Itoa(a.status)).Inc()
	}
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController flush.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (m *metrics) serve(w http.ResponseWriter, r *http.Request) {
	var theirs string
	if m.upstream != "" {
		var err error
		theirs, err = m.scrape(r)
		m.up.Set(map[bool]float64{true: 1}[err == nil])
	}
	families, err := m.registry.Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	w.Header().Set("Content-Type", string(format))
	encoder := expfmt.NewEncoder(w, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return
		}
	}
	_, _ = io.WriteString(w, theirs)
}

func (m *metrics) scrape(r *http.Request) (string, error) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+m.upstream+"/metrics", nil)
	if err != nil {
		return "", err
	}
	reply, err := m.client.Do(request)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", reply.Status)
	}
	var text strings.Builder
	_, err = io.Copy(&text, reply.Body)
	return text.String(), err
}
