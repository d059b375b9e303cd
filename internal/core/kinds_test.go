package core_test

import (
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/incident"
)

// TestProblemsAreRegistered: the registry has a row for whatever an agent
// reports.
func TestProblemsAreRegistered(t *testing.T) {
	for _, p := range agent.Problems() {
		if k := incident.SiteSays + "-" + incident.Kind(p); incident.Of(k).Cause == "" {
			t.Errorf("kind %s is in no table", k)
		}
	}
}
