// hanmo-gateway serves hanmo-server over HTTP: OpenAI-style paths with server-sent events, and hanmo's
// own calls as JSON.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"hanmo/gateway/internal/upstream"
)

// As in sysexits.h.
const (
	exitUsage       = 64
	exitUnavailable = 69
)

func main() { os.Exit(run()) }

func run() int {
	o, err := parseOptions(os.Args[1:], os.LookupEnv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hanmo-gateway:", err)
		return exitUsage
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if err := serve(o); err != nil {
		fmt.Fprintln(os.Stderr, "hanmo-gateway:", err)
		return exitUnavailable
	}
	return 0
}

func serve(o *options) error {
	// Before anything is announced: a signal may come at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	ours, err := o.listenTLS()
	if err != nil {
		return err
	}
	theirs, err := o.dialTLS()
	if err != nil {
		return err
	}
	connection, err := upstream.Dial(o.upstream, theirs, int(o.maxResponseBytes))
	if err != nil {
		return fmt.Errorf("--upstream: %w", err)
	}
	defer connection.Close()
	g, err := newGateway(o, connection)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	server := newServer(g, ours)
	failed := make(chan error, 1)
	go func() {
		if ours != nil {
			failed <- server.ServeTLS(listener, "", "")
		} else {
			failed <- server.Serve(listener)
		}
	}()
	fmt.Println("listening on", listener.Addr())
	slog.Info("listening", "address", listener.Addr().String(), "upstream", o.upstream)

	select {
	case err := <-failed:
		return err
	case <-signals:
		return g.drain(server, signals)
	}
}

func newServer(handler http.Handler, secure *tls.Config) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: handler, TLSConfig: secure, Protocols: protocols,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
}

// drain lets requests finish; a second signal ends them.
func (g *gateway) drain(server *http.Server, again <-chan os.Signal) error {
	g.draining.Store(true)
	slog.Info("draining", "delay", g.options.shutdownDelay.String(), "timeout", g.options.shutdownTimeout.String())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-again
		cancel()
	}()
	select {
	case <-time.After(g.options.shutdownDelay):
	case <-ctx.Done():
	}
	limited, stop := context.WithTimeout(ctx, g.options.shutdownTimeout)
	defer stop()
	if err := server.Shutdown(limited); err != nil {
		slog.Warn("requests were cut off", "reason", err.Error())
		return server.Close()
	}
	return nil
}
