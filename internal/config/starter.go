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
		"@STORE@", single(s.Store),
		"@DATA@", single(below(s.Dir, "data")),
		"@LOGS@", single(below(s.Dir, "logs")),
		"@SOURCE@", single(below(below(s.Dir, "content"), "package")),
		"@TARGET@", single(target),
		"@CONTROL@", single("tls://"+net.JoinHostPort(s.Host, port)),
		"@WEBSOCKET@", single("wss://"+net.JoinHostPort(s.Host, webPort)),
	).Replace(starterText))
}

// single quotes a text for YAML in the one style that does not interpret
// backslashes.
func single(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
