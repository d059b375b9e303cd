package core

import (
	"strings"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/wire"
)

// TestLimitSurvivesUpgrade: a row that another version of the program wrote,
// with a field more and with fields less, keeps the operator's limit.
func TestLimitSurvivesUpgrade(t *testing.T) {
	a := wire.Address{Domain: "apac", Site: "osaka"}
	site := &fleet.Site{Name: "osaka", Domain: "apac", Zone: "UTC", Placements: []fleet.Placement{{Channel: "package"}}}
	for _, body := range []string{`{"limit":"else 0"}`, `{"sent":"` + strings.Repeat("0f", 32) + `","of_a_newer_program":{"x":[1]},"limit":"else 0","limit_until":4102444800}`} {
		have := map[rowKey]ledger.Desired{{a, "package"}: {Domain: "apac", Site: "osaka", Channel: "package", Body: []byte(body)}}
		c := &Core{o: Options{Now: time.Now}}
		n, err := c.nightIn(site, a, have, nil)
		if err != nil || n.Limit != "else 0" {
			t.Errorf("%s: the limit is %q, %v", body, n.Limit, err)
		}
	}
	if _, err := (&Core{o: Options{Now: time.Now}}).nightIn(site, a, map[rowKey]ledger.Desired{{a, "package"}: {Body: []byte{0x82, 1, 2}}}, nil); err == nil {
		t.Error("a damaged row is taken for one without a limit")
	}
}
