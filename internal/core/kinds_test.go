package core_test

import (
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/kinds"
)

// TestProblemsAreRegistered: the registry has a row for whatever an agent
// reports.
func TestProblemsAreRegistered(t *testing.T) {
	for _, p := range agent.Problems() {
		if k := kinds.SiteSays + "-" + kinds.Kind(p); kinds.Of(k).Cause == "" {
			t.Errorf("kind %s is in no table", k)
		}
	}
}
