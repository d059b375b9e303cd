package heads

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/kinds"
	"nightferry/internal/ledger"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/wire"
)

// open records the open incidents.
type open map[string]string

func (o open) Raise(kind kinds.Kind, what string, _ wire.Address, text string) {
	o[string(kind)+" "+what] = text
}
func (o open) Resolve(kind kinds.Kind, what string, _ wire.Address) { delete(o, string(kind)+" "+what) }

func (o open) AddRelease(context.Context, ledger.Release) error { return nil }

// TestUnreadHead: a head that cannot be read is an incident of its channel, which stays unread; the other channels are
// read. A channel without a head has nothing to read.
func TestUnreadHead(t *testing.T) {
	store, err := bucket.Open(t.Context(), "file://"+filepath.ToSlash(t.TempDir()), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close(store)
	_, root, _ := ed25519.GenerateKey(nil)
	_, release, _ := ed25519.GenerateKey(nil)
	if _, err := repo.Init(t.Context(), store, repo.InitOptions{Root: root, Release: release, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	incidents := open{}
	s := New(Options{Records: incidents, Incidents: incidents, Repo: func() *repo.Repo { return r }, Released: func(ledger.Release) { t.Error("there is no release") }})
	channels := []string{"driver", "package"}
	testbed.WriteObject(t, store, repo.HeadKey("package"), []byte("damaged"))
	for i := range 2 {
		news, known, err := s.ImportAll(t.Context(), channels)
		if news || known != (i == 0) || err == nil || !strings.Contains(err.Error(), "channel package") || strings.Contains(err.Error(), "driver") {
			t.Errorf("news %t, known %t: %v", news, known, err)
		}
		if text := incidents["behind package"]; len(incidents) != 1 || !strings.Contains(text, "channel package") || s.Read("package") || !s.Read("driver") {
			t.Errorf("incidents %q", incidents)
		}
	}
	testbed.DeleteObject(t, store, repo.HeadKey("package"))
	if news, known, err := s.ImportAll(t.Context(), channels); news || !known || err != nil || len(incidents) > 0 || !s.Read("package") {
		t.Errorf("news %t, known %t: %v, incidents %q", news, known, err, incidents)
	}
}

// TestNewest: an older release never replaces a newer one.
func TestNewest(t *testing.T) {
	s := New(Options{})
	for _, r := range []struct {
		ledger.Release
		news bool
	}{{ledger.Release{Channel: "package", Number: 2}, true}, {ledger.Release{Channel: "package", Number: 1}, false}, {ledger.Release{Channel: "driver", Number: 1}, true}, {ledger.Release{Channel: "package", Number: 3}, true}} {
		if news := s.Put(r.Release); news != r.news {
			t.Errorf("%+v is news: %t", r.Release, news)
		}
	}
	list := s.List()
	if len(list) != 2 || !slices.IsSortedFunc(list, func(a, b ledger.Release) int { return strings.Compare(a.Channel, b.Channel) }) || list[1].Number != 3 {
		t.Errorf("%+v", list)
	}
}
