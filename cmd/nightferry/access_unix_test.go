//go:build unix

package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// grants creates API tokens, and uses them: each may do what its role and its scope allow, the audit names it, and a
// token that was revoked is good for nothing.
func (x *coreBox) grants() {
	x.t.Helper()
	t := x.t
	contains(t, x.fails(2, "access", "create", "Report", "--role", "viewer"), `want 1 to 63 of a-z`)
	contains(t, x.fails(2, "access", "create", "report", "--role", "boss"), `want logs, viewer, operator, publisher or admin`)
	x.must("access", "create", "report", "--role", "viewer", "-o", "report.token")
	x.must("access", "create", "night", "--role", "operator", "--domain", "corp", "--life", "2d", "-o", "night.token")
	x.mode("report.token", 0o600)
	list := x.table("access", "list")
	contains(t, list, `report +viewer +all +until .* never`, `night +operator +domain corp`)
	wide := x.env
	defer func() { x.env = wide }()
	as := func(name string) {
		x.env = append(slices.Clone(wide), envToken+"="+filepath.Join(x.dir, name+".token"))
	}
	as("report")
	if n := len(x.lines("sites")); n == 0 {
		t.Error("a viewer sees no site")
	}
	contains(t, x.fails(7, "halt", "--all", "--reason", "x"), `token report has the role viewer, and needs operator`, `remedy: `)
	contains(t, x.fails(7, "access", "list"), `needs admin`)
	as("night")
	contains(t, x.fails(7, "halt", "--all", "--reason", "x"), `token night has rights over domain corp only`)
	contains(t, x.fails(7, "status"), `domain corp only`)
	x.env = wide
	contains(t, x.must("audit", "--what", "refused"), `token report +refused +halt all`, `token night +refused`)
	x.must("access", "revoke", x.lines("access", "list")[0]["id"].(string))
	x.must("access", "revoke", x.lines("access", "list")[1]["id"].(string))
	for _, name := range []string{"report", "night"} {
		as(name)
		if why := x.fails(7, "sites"); strings.Contains(why, "nft_") {
			t.Errorf("an error contains a token: %s", why)
		}
	}
}
