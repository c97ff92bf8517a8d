package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestFlagsGoBeforeTheEnvironment(t *testing.T) {
	environment := func(name string) (string, bool) {
		value, ok := map[string]string{
			"HANMO_GATEWAY_LISTEN": "127.0.0.1:1", "HANMO_GATEWAY_SHUTDOWN_DELAY": "3s",
		}[name]
		return value, ok
	}
	o, err := parseOptions([]string{"--listen=127.0.0.1:2"}, environment, io.Discard)
	if err != nil || o.listen != "127.0.0.1:2" || o.shutdownDelay != 3*time.Second || o.upstream != "127.0.0.1:8001" {
		t.Error(o, err)
	}
}

func TestHelpNamesTheTwin(t *testing.T) {
	var help strings.Builder
	if _, err := parseOptions([]string{"--help"}, func(string) (string, bool) { return "", false }, &help); err == nil {
		t.Error("--help is an end")
	}
	for _, line := range []string{
		"  --listen HOST:PORT\n      HOST:PORT of HTTP; port 0 takes a free one\n      [default 127.0.0.1:8000; HANMO_GATEWAY_LISTEN]\n",
		"  --upstream-tls BOOL\n      speak TLS to hanmo-server\n      [default false; HANMO_GATEWAY_UPSTREAM_TLS]\n",
		"[no default; HANMO_GATEWAY_TLS_KEY]\n",
	} {
		if !strings.Contains(help.String(), line) {
			t.Errorf("%q is not in\n%s", line, help.String())
		}
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	for argument, word := range map[string]string{
		"--nothing":                "nothing",
		"extra":                    "extra",
		"--tls-cert=a":             "--tls-key",
		"--tls-client-ca=a":        "--tls-cert",
		"--upstream-tls-ca=a":      "--upstream-tls",
		"--upstream-tls-cert=a":    "--upstream-tls-key",
		"--max-request-bytes=0":    "--max-request-bytes",
		"--shutdown-timeout=never": "shutdown-timeout",
	} {
		if _, err := parseOptions([]string{argument}, none, io.Discard); err == nil || !strings.Contains(err.Error(), word) {
			t.Error(argument, err)
		}
	}
	bad := func(name string) (string, bool) { return "soon", name == "HANMO_GATEWAY_REQUEST_TIMEOUT" }
	if _, err := parseOptions(nil, bad, io.Discard); err == nil || !strings.Contains(err.Error(), "HANMO_GATEWAY_REQUEST_TIMEOUT") {
		t.Error(err)
	}
}
