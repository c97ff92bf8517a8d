package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificate is read again when its files have changed. A pair that can't be read leaves the last
// one in use.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	changed time.Time
}

func loadCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	return c, c.reload()
}

func (c *certificate) reload() error {
	var newest time.Time
	for _, file := range []string{c.certFile, c.keyFile} {
		about, err := os.Stat(file)
		if err != nil {
			return err
		}
		if about.ModTime().After(newest) {
			newest = about.ModTime()
		}
	}
	if c.current != nil && newest.Equal(c.changed) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.changed = &pair, newest
	return nil
}

func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.reload()
	return c.current
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}

// listenTLS is nil for plaintext.
func (o *options) listenTLS() (*tls.Config, error) {
	if o.tlsCert == "" {
		return nil, nil
	}
	own, err := loadCertificate(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	config := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get(), nil },
	}
	if o.tlsClientCA != "" {
		if config.ClientCAs, err = loadAuthorities(o.tlsClientCA); err != nil {
			return nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// dialTLS is nil for plaintext.
func (o *options) dialTLS() (*tls.Config, error) {
	if !o.upstreamTLS {
		return nil, nil
	}
	config := &tls.Config{ServerName: o.upstreamTLSName}
	if o.upstreamTLSCA != "" {
		var err error
		if config.RootCAs, err = loadAuthorities(o.upstreamTLSCA); err != nil {
			return nil, fmt.Errorf("--upstream-tls-ca: %w", err)
		}
	}
	if o.upstreamTLSCert != "" {
		own, err := loadCertificate(o.upstreamTLSCert, o.upstreamTLSKey)
		if err != nil {
			return nil, fmt.Errorf("--upstream-tls-cert, --upstream-tls-key: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own.get(), nil
		}
	}
	return config, nil
}
