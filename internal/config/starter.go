package config

import (
	_ "embed"
	"net"
	"strings"
)

//go:embed starter.yaml
var starterText string

// Starter holds the values for the starter file.
type Starter struct {
	Dir   string // the Core's folder, absolute
	Store string // s3:// URL; empty: an example that must be changed
	Host  string // the name or address by which sites reach the Core; empty: an example
}

// Default returns a commented starter configuration. It is valid if the
// values of the Starter are.
func Default(s Starter) []byte {
	if s.Store == "" {
		s.Store = "s3://my-bucket/nightferry?region=eu-central-1"
	}
	if s.Host == "" {
		s.Host = "core.example.com"
	}
	_, port, _ := net.SplitHostPort(defaultControl)
	_, webPort, _ := net.SplitHostPort(defaultWebSocket)
	target := "/srv/depot/package"
	if !strings.HasPrefix(s.Dir, "/") {
		target = `D:\depot\package`
	}
	return []byte(strings.NewReplacer(
		"@STORE@", singleQuote(s.Store),
		"@DATA@", singleQuote(joinPath(s.Dir, "data")),
		"@LOGS@", singleQuote(joinPath(s.Dir, "logs")),
		"@SOURCE@", singleQuote(joinPath(joinPath(s.Dir, "content"), "package")),
		"@TARGET@", singleQuote(target),
		"@CONTROL@", singleQuote("tls://"+net.JoinHostPort(s.Host, port)),
		"@WEBSOCKET@", singleQuote("wss://"+net.JoinHostPort(s.Host, webPort)),
	).Replace(starterText))
}

// singleQuote quotes a text for YAML in the one style that does not interpret
// backslashes.
func singleQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
