package signin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"nightferry/internal/durable"
)

const (
	providerWithin = 10 * time.Second // for an answer of the provider
	maxAnswer      = 1 << 20          // bytes of an answer
	retryAfter     = 5 * time.Second  // after a provider did not answer
	maxCAFile      = 1 << 20
)

// algorithms are the signatures of ID tokens that count: with a key pair. So no token without a signature counts, nor one
// that is signed with the public key as a shared secret.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// ProviderError means that the identity provider does not answer, or refuses.
type ProviderError struct {
	Issuer string
	Err    error
}

func (e *ProviderError) Error() string {
	return fmt.Sprintf("The identity provider %s does not let you in: %v", e.Issuer, e.Err)
}
func (e *ProviderError) Unwrap() error { return e.Err }

// Remedy names the ways that need no provider.
func (e *ProviderError) Remedy() string {
	return "Try again. Until it works: nightferry console link on the Core's machine, or an API token. Halt orders need neither: nightferry halt."
}

// provider is the identity provider, once its discovery document was read.
type provider struct {
	mu       sync.Mutex
	settings Settings // that client is of
	client   *client
	failed   time.Time
	err      error
}

// client calls a provider.
type client struct {
	settings Settings
	secret   string
	http     *http.Client
	oidc     *oidc.Provider
}

func (p *provider) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client, p.err = nil, nil
}

// open returns the client of the settings in force. It reads the secret once, since anyone can begin a sign-in, and each
// read is audited.
func (p *provider) open(ctx context.Context, s *Settings, secret func(context.Context) (string, error), now time.Time) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := reflect.DeepEqual(p.settings, *s)
	if same && p.client != nil {
		return p.client, nil
	}
	if since := now.Sub(p.failed); same && p.err != nil && since >= 0 && since < retryAfter {
		return nil, p.err
	}
	c, err := discover(ctx, s)
	if err == nil {
		if c.secret, err = secret(ctx); err != nil {
			err = fmt.Errorf("the Core cannot read its secret: %w", err)
		}
	}
	if err != nil {
		c, err = nil, &ProviderError{s.Issuer, err}
	}
	p.settings, p.client, p.err, p.failed = *s, c, err, now
	return c, err
}

func discover(ctx context.Context, s *Settings) (*client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone() // with the proxy of the environment
	if s.CAFile != "" {
		b, err := durable.ReadTrusted(s.CAFile, maxCAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%q holds no certificate (PEM)", s.CAFile)
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	c := &client{settings: *s, http: &http.Client{Transport: limited{t}, Timeout: providerWithin}}
	var err error
	c.oidc, err = oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), c.http), s.Issuer)
	return c, err
}

// limited bounds the answers of a provider.
type limited struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

func (c *client) config(consoleURL string) *oauth2.Config {
	return &oauth2.Config{ClientID: c.settings.ClientID, ClientSecret: c.secret, Endpoint: c.oidc.Endpoint(), RedirectURL: consoleURL + rootPath + "/callback", Scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
}

// exchange returns the verified ID token of a code.
func (c *client) exchange(ctx context.Context, o *oauth2.Config, code string, p *pending, now func() time.Time) (map[string]any, error) {
	ctx = oidc.ClientContext(ctx, c.http)
	t, err := o.Exchange(ctx, code, oauth2.VerifierOption(p.Verifier))
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) { // its text has the whole answer
			err = fmt.Errorf("it refuses the code (%d %.64q)", refused.Response.StatusCode, refused.ErrorCode)
		}
		return nil, err
	}
	raw, ok := t.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("its answer has no ID token")
	}
	id, err := c.oidc.VerifierContext(ctx, &oidc.Config{ClientID: c.settings.ClientID, SupportedSigningAlgs: algorithms, Now: now}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("its ID token is not good: %w", err)
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("its ID token is not good: %w", err)
	}
	switch {
	case id.Nonce == "" || id.Nonce != p.Nonce:
		return nil, errors.New("its ID token is of another sign-in (nonce)")
	case id.Subject == "":
		return nil, errors.New("its ID token names no person (sub)")
	case len(id.Audience) > 1 && claims["azp"] != c.settings.ClientID:
		return nil, errors.New("its ID token is for another application (azp)")
	}
	return claims, nil
}
