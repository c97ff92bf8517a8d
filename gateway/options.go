package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

type options struct {
	listen           string
	upstream         string
	upstreamMetrics  string
	upstreamTLS      bool
	upstreamTLSCA    string
	upstreamTLSCert  string
	upstreamTLSKey   string
	upstreamTLSName  string
	tlsCert          string
	tlsKey           string
	tlsClientCA      string
	maxRequestBytes  int64
	maxResponseBytes int64
	requestTimeout   time.Duration
	shutdownDelay    time.Duration
	shutdownTimeout  time.Duration
}

// parseOptions reads flags and, for those not given, the environment.
func parseOptions(arguments []string, environment func(string) (string, bool), output io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("hanmo-gateway", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8000", "`HOST:PORT` of HTTP; port 0 takes a free one")
	flags.StringVar(&o.upstream, "upstream", "127.0.0.1:8001",
		"`TARGET` of hanmo-server: HOST:PORT, dns:///HOST:PORT for all addresses of a name, or unix:PATH")
	flags.StringVar(&o.upstreamMetrics, "upstream-metrics", "",
		"`HOST:PORT` whose /metrics are served with ours; empty serves ours alone")
	flags.BoolVar(&o.upstreamTLS, "upstream-tls", false, "speak TLS to hanmo-server")
	flags.StringVar(&o.upstreamTLSCA, "upstream-tls-ca", "",
		"`FILE` of certificates that hanmo-server's must come from (PEM); empty takes the system's")
	flags.StringVar(&o.upstreamTLSCert, "upstream-tls-cert", "", "`FILE` of the certificate that shows us to hanmo-server (PEM)")
	flags.StringVar(&o.upstreamTLSKey, "upstream-tls-key", "", "`FILE` of its private key (PEM)")
	flags.StringVar(&o.upstreamTLSName, "upstream-tls-name", "", "`NAME` in hanmo-server's certificate, where it is not the target's")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "`FILE` of our certificate chain (PEM), read again when it changes; empty serves plaintext")
	flags.StringVar(&o.tlsKey, "tls-key", "", "`FILE` of its private key (PEM)")
	flags.StringVar(&o.tlsClientCA, "tls-client-ca", "", "`FILE` of certificates: demand client certificates signed by one of these (PEM)")
	flags.Int64Var(&o.maxRequestBytes, "max-request-bytes", 32<<20, "most `BYTES` of a request; more get 413")
	flags.Int64Var(&o.maxResponseBytes, "max-response-bytes", 256<<20, "most `BYTES` of a message taken from hanmo-server")
	flags.DurationVar(&o.requestTimeout, "request-timeout", 0,
		"longest `TIME` (ms, s, m, h) of a request, also where its X-Request-Timeout asks for more; 0 sets no limit")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", 0, "`TIME` after TERM during which /health answers 503 before connections are refused")
	flags.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 30*time.Second, "`TIME` that requests then have to finish")
	flags.Usage = func() {
		fmt.Fprintln(output, "Usage: hanmo-gateway [FLAG...]\n\nServes hanmo-server over HTTP: OpenAI-style paths and JSON. "+
			"Each flag has a twin\nin the environment; flags go before it.")
		fmt.Fprintln(output)
		flags.VisitAll(func(f *flag.Flag) { describe(f, output) })
	}
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var wrong error
	flags.VisitAll(func(f *flag.Flag) {
		name := twin(f)
		value, ok := environment(name)
		if !ok || given[f.Name] || wrong != nil {
			return
		}
		if err := f.Value.Set(value); err != nil {
			wrong = fmt.Errorf("invalid value %q of %s: %w", value, name, err)
		}
	})
	if wrong != nil {
		return nil, wrong
	}
	return o, o.check()
}

// twin is the flag's name in the environment.
func twin(f *flag.Flag) string {
	return "HANMO_GATEWAY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// describe writes a flag as hanmo-server --help writes an option.
func describe(f *flag.Flag, output io.Writer) {
	value, meaning := flag.UnquoteUsage(f)
	if value == "" {
		value = "BOOL"
	}
	preset := "no default"
	if f.DefValue != "" {
		preset = "default " + f.DefValue
	}
	fmt.Fprintf(output, "  --%s %s\n      %s\n      [%s; %s]\n", f.Name, value, meaning, preset, twin(f))
}

func (o *options) check() error {
	switch {
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return fmt.Errorf("--tls-cert and --tls-key go together")
	case o.tlsClientCA != "" && o.tlsCert == "":
		return fmt.Errorf("--tls-client-ca needs --tls-cert")
	case (o.upstreamTLSCert == "") != (o.upstreamTLSKey == ""):
		return fmt.Errorf("--upstream-tls-cert and --upstream-tls-key go together")
	case !o.upstreamTLS && o.upstreamTLSCA+o.upstreamTLSCert+o.upstreamTLSName != "":
		return fmt.Errorf("the --upstream-tls-... flags need --upstream-tls")
	case o.maxRequestBytes < 1 || o.maxResponseBytes < 1 || o.maxResponseBytes > 1<<31-1:
		return fmt.Errorf("--max-request-bytes and --max-response-bytes must be at least 1 and below 2 GiB")
	case o.requestTimeout < 0 || o.shutdownDelay < 0 || o.shutdownTimeout < 0:
		return fmt.Errorf("times can't be negative")
	}
	return nil
}
