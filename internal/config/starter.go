package config

import (
	_ "embed"
	"net"
	"strings"
)

//go:embed starter.yaml
var starterText string

// Starter fills the starter file in.
type Starter struct {
	Dir   string // the folder that the Core lives in, absolute
	Store string // s3:// URL; empty: an example that must be changed
	Host  string // the name or address under which sites reach the Core; empty: an example
}

// Default returns a commented configuration to begin with. It is valid as long
// as the Starter is.
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

// single quotes a text for YAML in the one style that leaves backslashes alone.
func single(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
