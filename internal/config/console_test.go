package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/rights"
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

// TestSignIn checks the identity provider and its roles, and the mistakes in them.
func TestSignIn(t *testing.T) {
	const console = "listen: {console: 0.0.0.0:8443}\n"
	const good = console + "signin: {issuer: 'https://idp/x', client_id: id, roles: [{value: a, role: operator, region: r}, {value: b, role: viewer}]}\n"
	c, err := Parse("f", []byte(base+group+good))
	if err != nil {
		t.Fatal(err)
	}
	want := &SignIn{Issuer: "https://idp/x", ClientID: "id", Claim: "roles", Roles: []Grant{{Value: "a", Role: rights.Operator, Region: "r"}, {Value: "b", Role: rights.Viewer}}}
	if diff := cmp.Diff(want, c.SignIn); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for change, want := range map[string]string{
		"0.0.0.0:8443|off":                    "set listen.console",
		"https://idp/x|http://idp/x":          "want an https URL",
		"https://idp/x|https://h/common/v2.0": "name your own tenant",
		"client_id: id, |":                    "signin.client_id: it is missing",
		"value: b|value: a":                   "stands here twice",
		"role: viewer|role: boss":             "signin.roles[1].role",
		"region: r|region: q":                 "there is no such region",
		"region: r|domain: q":                 "there is no such domain",
		"[{value: a, role: operator, region: r}, {value: b, role: viewer}]|[]": "nobody could sign in",
	} {
		old, changed, _ := strings.Cut(change, "|")
		if _, err := Parse("f", []byte(base+group+strings.Replace(good, old, changed, 1))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
	}
}
