package core_test

import (
	"regexp"
	"strings"
	"testing"

	"nightferry/internal/bustest"
	"nightferry/internal/core"
)

// TestOwnCluster: a fleet over somebody else's NATS server, whose owner follows
// what the incidents say; by TLS, and by WebSocket alone.
func TestOwnCluster(t *testing.T) {
	t.Parallel()
	for name, urls := range map[string]func(*bustest.Cluster) []string{
		"tls": func(c *bustest.Cluster) []string { return c.URLs },
		"wss": func(c *bustest.Cluster) []string { return c.WebSocket },
	} {
		t.Run(name, func(t *testing.T) { ownCluster(t, urls) })
	}
}

func ownCluster(t *testing.T, urls func(*bustest.Cluster) []string) {
	cluster := bustest.NATS(t)
	w := newWorldWith(t, nil, func(w *world) {
		w.options.Cluster = &core.Cluster{URLs: urls(cluster), CredsFile: cluster.CredsFile, CAFile: cluster.CAFile}
	})
	reload := func() {
		t.Helper()
		if err := w.core.Reload(t.Context(), w.settings); err != nil {
			t.Fatal(err)
		}
	}
	command := regexp.MustCompile(`--sk (A[A-Z0-9]{55}) --role "([a-z ]+)" --allow-pub '([^']+)' --allow-sub '([^']+)'`)
	keys := map[string][]string{}
	w.until("an incident for each signing key", func() bool {
		for _, text := range w.texts("cluster") {
			if m := command.FindStringSubmatch(text); m != nil {
				keys[m[2]] = m
			}
		}
		return len(keys) == 3
	})
	for _, m := range keys {
		cluster.Trust(m[1], m[3], m[4])
	}
	reload()
	w.until("the cluster's users to be right", func() bool { return len(w.texts("cluster")) == 0 })

	w.write("a.txt", "alpha")
	for _, n := range []string{"berlin", "osaka", "tokyo"} {
		w.runAgent(n, true)
	}
	w.publish("package")
	w.untilCurrent(1, "berlin", "osaka", "tokyo")

	// The cluster goes away and comes back, and nobody has to do anything.
	cluster.Stop()
	w.until("the incident", func() bool {
		return strings.Contains(strings.Join(w.texts("cluster"), " "), "keep their releases")
	})
	w.write("b.txt", "beta")
	w.publish("package")
	cluster.Start()
	w.untilCurrent(2, "berlin", "osaka", "tokyo")
	w.until("the incident to be over", func() bool { return len(w.texts("cluster")) == 0 })

	// Revoked: heard no more, and told how to cut it off.
	if err := w.core.Enrolment.RevokeSite(t.Context(), "osaka", "stolen"); err != nil {
		t.Fatal(err)
	}
	if text := w.untilIncident("cluster-revoked"); !strings.Contains(text, "nsc revocations add-user --account NAME --user-public-key U") {
		t.Error(text)
	}
	w.untilDeed("revoke", "nsc revocations")
	w.untilIncident("revoked")
	w.write("c.txt", "gamma")
	w.publish("package")
	w.untilCurrent(3, "berlin", "tokyo")
	if s := w.channel("osaka", "package"); s.Holds != 2 {
		t.Errorf("a revoked site goes on: %+v", s)
	}

	// A signing key without its scope is found out.
	m := keys["domain corp"]
	cluster.Distrust(m[1])
	cluster.Trust(m[1])
	reload()
	w.until("the incident", func() bool {
		return strings.Contains(strings.Join(w.texts("cluster"), " "), "receive messages of others")
	})
}
