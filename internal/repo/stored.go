package repo

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strconv"
	"strings"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/manifest"
	"nightferry/internal/trust"
)

// Keys of the objects that are listed by gc and fsck.
const (
	PacksPrefix    = "packs/"
	IndexPrefix    = "index/"
	ChannelsPrefix = "channels/"
)

// RootKey is the key of the index root.
const RootKey = rootKey

// Stored lists the objects of one channel in the store, by its name in object
// keys.
type Stored struct {
	Scope    string
	Head     bool
	Releases []StoredRelease // by number
}

// StoredRelease is one release object, unread.
type StoredRelease struct {
	Number   trust.ReleaseNumber
	Modified clock.Store
}

// Stored lists the objects of all channels with a single LIST, and the keys
// below ChannelsPrefix that are neither a head nor a release.
func (r *Repo) Stored(ctx context.Context) (scopes []Stored, strange []bucket.Info, err error) {
	err = r.objects.store.List(ctx, ChannelsPrefix, func(i bucket.Info) error {
		scope, rest, _ := strings.Cut(strings.TrimPrefix(i.Key, ChannelsPrefix), "/")
		number, isRelease := strings.CutPrefix(rest, "releases/")
		n, numErr := strconv.ParseUint(number, 10, 64)
		isRelease = isRelease && numErr == nil && i.Key == ReleaseKey(scope, trust.ReleaseNumber(n))
		if rest != "head" && !isRelease {
			strange = append(strange, i)
			return nil
		}
		if len(scopes) == 0 || scopes[len(scopes)-1].Scope != scope {
			scopes = append(scopes, Stored{Scope: scope})
		}
		s := &scopes[len(scopes)-1]
		if isRelease {
			s.Releases = append(s.Releases, StoredRelease{Number: trust.ReleaseNumber(n), Modified: clock.StoreAt(i.Modified)})
		} else {
			s.Head = true
		}
		return nil
	})
	for _, s := range scopes {
		slices.SortFunc(s.Releases, func(a, b StoredRelease) int { return cmp.Compare(a.Number, b.Number) })
	}
	return scopes, strange, err
}

// Channels returns the names of all channels that have a head.
func (r *Repo) Channels(ctx context.Context) ([]string, error) {
	var scopes []string
	err := r.objects.store.List(ctx, "channels/", func(i bucket.Info) error {
		if path.Base(i.Key) == "head" {
			scopes = append(scopes, strings.TrimSuffix(strings.TrimPrefix(i.Key, "channels/"), "/head"))
		}
		return nil
	})
	if err != nil || r.identity.keys == nil {
		return scopes, err
	}
	for i, scope := range scopes {
		if scopes[i], err = r.ChannelOf(ctx, scope); err != nil {
			return nil, err
		}
	}
	return scopes, nil
}

// ChannelOf returns the channel name for a name in object keys. In an encrypted
// repository it must read the channel's head and its newest release.
func (r *Repo) ChannelOf(ctx context.Context, scope string) (string, error) {
	if r.identity.keys == nil {
		return scope, manifest.CheckChannel(scope)
	}
	b, _, err := readObject(ctx, r.objects.store, HeadKey(scope), trust.MaxHead)
	if err != nil {
		return "", err
	}
	s, err := trust.Parse(trust.HeadKind, trust.HeadVersion, trust.MaxHead, b)
	if err != nil {
		return "", err
	}
	h, err := trust.DecodeHead(s.Payload)
	if err != nil {
		return "", err
	}
	rel, err := r.StoredRelease(ctx, scope, trust.ReleaseNumber(s.Subject.Number), h.Release)
	if err != nil {
		return "", err
	}
	return rel.Channel, nil
}
