package config

import (
	"slices"
	"strings"
	"testing"
)

// TestConsole checks the address, the URL and the hosts of the console, and its mistakes.
func TestConsole(t *testing.T) {
	for text, want := range map[string]Console{
		"":                                  {},
		"listen: {console: off}":            {},
		"listen: {console: {address: off}}": {},
		"listen: {console: 0.0.0.0:8443}":   {Address: "0.0.0.0:8443", URL: "https://core:8443"},
		"listen: {console: '[::]:8443'}":    {Address: "[::]:8443", URL: "https://core:8443"},
		"listen: {websocket: off, console: {address: 0.0.0.0:443, certificate_file: /c, key_file: /k}}": {Address: "0.0.0.0:443", URL: "https://core", CertificateFile: "/c", KeyFile: "/k"},
		"listen: {console: {address: 0.0.0.0:8443, url: https://Console.example.com/}}":                 {Address: "0.0.0.0:8443", URL: "https://console.example.com"},
	} {
		c, err := Parse("f", []byte(base+text+"\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if c.Listen.Console != want {
			t.Errorf("%s: %+v, want %+v", text, c.Listen.Console, want)
		}
		if hosts := c.Hosts(); !slices.Contains(hosts, "core") || !slices.Contains(hosts, "localhost") || strings.Contains(text, "Console.") != slices.Contains(hosts, "console.example.com") {
			t.Errorf("%s: hosts %q", text, hosts)
		}
	}
	for text, want := range map[string]string{
		"listen: {console: {url: https://x}}":                                                             "listen.console.address",
		"listen: {console: x}":                                                                            "listen.console: ",
		"listen: {console: {address: 0.0.0.0:8443, key_file: /k}}":                                        "listen.console.key_file",
		"listen: {console: {address: 0.0.0.0:8443, certificate_file: /k}}":                                "listen.console.certificate_file",
		"listen: {console: {address: 0.0.0.0:8443, url: http://x}}":                                       "want https://HOST",
		"listen: {console: {address: 0.0.0.0:8443, url: https://x/y}}":                                    "want https://HOST",
		"listen: {console: {address: 0.0.0.0:8443, url: 'https://kay:secret@x'}}":                         "credentials do not belong",
		"listen: {console: 0.0.0.0:4222}":                                                                 "port 4222 is the one of control",
		"listen: {console: 0.0.0.0:9469}\nnats: {urls: ['tls://n:1'], credentials_file: /c, ca_file: /a}": "port 9469 is the one of metrics",
		"listen: {console: 0.0.0.0:8443}\nnats: {urls: ['tls://n:1'], credentials_file: /c, ca_file: /a}": "listen.console.url: it is missing",
	} {
		if _, err := Parse("f", []byte(base+text+"\n")); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
