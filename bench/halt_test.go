package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestContentRelayCountsWhatGoesToAgents checks that the relay counts neither the Core's reads nor halt orders.
func TestContentRelayCountsWhatGoesToAgents(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	defer srv.Close()
	r, err := startContentRelay(t.Context(), strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(agent string, paths ...string) {
		t.Helper()
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for _, p := range paths {
			fmt.Fprintf(c, "GET %s?x=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: %s\r\n\r\n", p, agent)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}
	read("nightferry/1", "/b/packs/aa", "/b/halt")
	if n := r.bytes.Load(); n != 0 {
		t.Errorf("%d bytes to the Core are counted", n)
	}
	r.bound.Store(time.Now().Add(-time.Second).UnixNano())
	read("nightferry-agent/1", "/b/packs/aa", "/b/halt", "/b/packs/bb")
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if n, o := r.bytes.Load(), r.orders.Load(); n < 200_000 || n > 210_000 || o < 100_000 || o > 105_000 || len(r.late) != 2 {
		t.Errorf("%d bytes of content, %d of orders, late %v", n, o, r.late)
	}
}

func TestHaltTargetsAreJudgedByTheirNumbers(t *testing.T) {
	for _, w := range haltTargets(nil) {
		if w.measured != "" {
			t.Errorf("%s: measured %q where nothing was", w.target, w.measured)
		}
	}
	good := haltResult{Moving: 1, Idle: 1, All: stopResult{Last: haltBound, Confirmed: haltBound + time.Second, Sites: 2}, Cut: stopResult{Last: haltCutBound}}
	late, more := good, good
	late.All.Last, late.All.Confirmed, late.Cut.Last = haltBound+1, haltBound+time.Second+2, haltCutBound+1
	more.All.After, more.All.Sites, more.Cut.After = 1, 1, 1
	for i, w := range haltTargets(&good) {
		if !w.ok || haltTargets(&late)[i].ok || haltTargets(&more)[i].ok {
			t.Errorf("%s: %+v", w.target, w)
		}
	}
}
