//go:build unix

package main

import (
	"os"
	"strings"
	"testing"

	"nightferry/internal/s3test"
)

// TestAlertSecretIsChecked: core check and core reload name a webhook whose secret is missing, whether the Core runs or
// not.
func TestAlertSecretIsChecked(t *testing.T) {
	x := haltBox(t, s3test.S3(t))
	text, err := os.ReadFile(x.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.config, []byte(string(text)+"\nalerts: {webhook: true}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func() string {
		t.Helper()
		out, _, code := x.try("", "core", "check")
		if bad := strings.Contains(out, "BAD  webhook"); bad && code != 3 {
			t.Errorf("core check ends with %d: %s", code, out)
		}
		return out
	}
	contains(t, check(), `BAD  webhook .*nightferry secret set webhook`)
	x.start()
	contains(t, check(), `BAD  webhook .*nightferry secret set webhook`)
	contains(t, x.must("core", "reload"), "no alert can be delivered there", "nightferry secret set webhook")
	x.set("secret", "set", "webhook", "https://hook.example.com/x")
	contains(t, check(), `webhook +unproven: the running Core has the secret webhook`)
	if out := x.must("core", "reload"); strings.Contains(out, "no alert") {
		t.Errorf("the secret is stored, and core reload prints %s", out)
	}
	x.stop()
	contains(t, check(), `ok   webhook`)
}
