package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"nightferry/internal/api"
	"nightferry/internal/apitokens"
	"nightferry/internal/durable"
	"nightferry/internal/text"
)

// Variables by which commands reach a Core. There is no flag for a token: other accounts see arguments.
const (
	envCore      = "NIGHTFERRY_CORE"    // https://host[:port] of a Core on another machine
	envCoreCA    = "NIGHTFERRY_CORE_CA" // file with the authority of its certificate
	envTokenText = "NIGHTFERRY_TOKEN"
	envToken     = "NIGHTFERRY_TOKEN_FILE"
)

// envTopic is the help topic of these variables.
const envTopic = "help environment"

const (
	maxTokenFile = 1 << 10 // bytes
	maxCAFile    = 1 << 20
)

// remoteClient returns a client of a Core on another machine.
func remoteClient(at string) (*api.Client, error) {
	u, err := url.Parse(at)
	if strings.Contains(at, "@") {
		return nil, usage(envTopic, "%s: credentials do not belong into a URL", envCore)
	}
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, usage(envTopic, "%s %q: want https://HOST or https://HOST:PORT", envCore, at)
	}
	token, err := apiToken()
	if err != nil {
		return nil, err
	}
	if token == "" {
		return nil, &keyError{errors.New("a Core on another machine (" + envCore + ") needs an API token"), "name its file in " + envToken + "; on the Core's machine, nightferry access create makes one"}
	}
	o := api.ClientOptions{Remote: u.Scheme + "://" + u.Host, Token: token, Explain: func(err error) error {
		if errors.Is(err, api.ErrSilent) {
			return &silentError{err}
		}
		return err
	}}
	if path := os.Getenv(envCoreCA); path != "" {
		b, err := durable.ReadTrusted(path, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", envCoreCA, err)
		}
		if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(b) {
			return nil, usage(envTopic, "%s: %q holds no certificate (PEM)", envCoreCA, path)
		}
	}
	return api.NewClient(o), nil
}

// apiToken returns the API token of the environment, or nothing.
func apiToken() (string, error) {
	token, source := os.Getenv(envTokenText), envTokenText
	if path := os.Getenv(envToken); path != "" {
		if token != "" {
			return "", usage(envTopic, "%s and %s are both set: leave one", envTokenText, envToken)
		}
		b, err := text.ReadFile(durable.ReadPrivate, path, maxTokenFile)
		if err != nil {
			return "", fmt.Errorf("%s: %w", envToken, err)
		}
		token, source = strings.TrimSpace(string(b)), fmt.Sprintf("%s: %q", envToken, path)
	} else if token == "" {
		return "", nil
	}
	if !strings.HasPrefix(token, apitokens.Prefix) || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usage(envTopic, "%s holds no API token", source)
	}
	return token, nil
}
