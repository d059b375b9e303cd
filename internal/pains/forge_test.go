package pains

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// forger has the release key and acts as an attacker or as a buggy publisher: its objects are correctly signed and
// named, but our encoder would never write their content.
type forger struct {
	w    *world
	r    *repo.Repo
	segs *repo.Segments
}

func newForger(w *world) *forger {
	w.t.Helper()
	r, err := w.open(w.t.Context(), w.store)
	must(w.t, err)
	dir, err := durable.Open(w.t.TempDir(), durable.Options{})
	must(w.t, err)
	w.t.Cleanup(func() { _ = dir.Close() })
	return &forger{w, r, r.Segments(dir)}
}

// The structures of the formats, without any checks.
type (
	anyEntry struct {
		_      struct{} `cbor:",toarray"`
		Path   string
		Kind   uint8
		Size   int64
		MTime  int64
		Mode   uint16
		Digest digest.Digest
		Chunks []chunk.Ref
		Lists  []manifest.ListRef
	}
	anyPage struct {
		_       struct{} `cbor:",toarray"`
		Entries []anyEntry
	}
)

// file is an entry of a file of one chunk.
func file(path string, content []byte) anyEntry {
	return anyEntry{Path: path, Size: int64(len(content)), MTime: longAgo.UnixNano(), Mode: 0o644, Digest: digest.Of(content)}
}

// store adds chunks to the repository, unchanged and under their proper keys.
func (f *forger) store(chunks ...[]byte) []digest.Digest {
	t := f.w.t
	t.Helper()
	w, err := pack.NewWriter(nil, nil)
	must(t, err)
	enc, err := pack.NewEncoder()
	must(t, err)
	var ids []digest.Digest
	for _, b := range chunks {
		id := digest.Of(b)
		ids = append(ids, id)
		w.Add(pack.Compress(enc, nil, b, []chunk.Ref{{ID: id, Size: int64(len(b))}}))
	}
	done, err := w.Finish()
	must(t, err)
	must(t, f.r.PutPack(t.Context(), done))
	var batch repo.Batch
	batch.Add(done)
	must(t, f.segs.AddSegment(t.Context(), &batch))
	return ids
}

// blob stores any bytes as a pack object, and adds an index entry that locates a chunk in one block of it.
func (f *forger) blob(stored []byte, id digest.Digest, size int64) {
	t := f.w.t
	t.Helper()
	object := append(make([]byte, pack.PreludeSize), stored...)
	d := digest.Of(object)
	_, err := f.w.store.Put(t.Context(), repo.PackKey(d), bucket.Bytes(object), bucket.Cond{})
	must(t, err)
	var batch repo.Batch
	batch.AddFooter(index.Pack{Digest: d, Size: uint32(len(object))}, &pack.Footer{Blocks: []pack.FooterBlock{{
		Stored: uint32(len(stored)), Raw: uint32(size), Chunks: []chunk.Ref{{ID: id, Size: size}}}}})
	must(t, f.segs.AddSegment(t.Context(), &batch))
}

// page encodes entries.
func (f *forger) page(entries ...anyEntry) []byte {
	f.w.t.Helper()
	b, err := frame.Encode(manifest.PageKind, manifest.PageVersion, &anyPage{Entries: entries})
	must(f.w.t, err)
	return b
}

// release signs a release with the next number, and a head that names it.
func (f *forger) release(rel *manifest.Release) {
	t := f.w.t
	t.Helper()
	ctx := t.Context()
	rel.Channel, rel.Portable, rel.Created = channel, true, time.Now().Unix()
	if rel.Tree.IsZero() {
		rel.Tree = digest.Of([]byte("a tree"))
	}
	number, cond := trust.ReleaseNumber(1), bucket.Cond{Absent: true}
	if head, err := f.r.Head(ctx, channel); err == nil {
		number, cond, rel.Parent = head.Number+1, bucket.Cond{ETag: head.ETag}, head.Release
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	payload, err := frame.Marshal(rel)
	must(t, err)
	subject := trust.Subject{Kind: manifest.ReleaseKind, Version: manifest.ReleaseVersion, Repo: f.r.ID(), Scope: channel, Number: uint64(number)}
	b, err := trust.Sign(f.w.key, subject, payload)
	must(t, err)
	_, err = f.w.store.Put(ctx, repo.ReleaseKey(channel, number), bucket.Bytes(b), bucket.Cond{Absent: true})
	must(t, err)
	head := trust.Head{Release: trust.ReleaseDigest(digest.Of(b)), Expires: time.Now().Add(repo.HeadLife).Unix()}
	payload, err = head.Encode()
	must(t, err)
	subject.Kind, subject.Version = trust.HeadKind, trust.HeadVersion
	b, err = trust.Sign(f.w.key, subject, payload)
	must(t, err)
	_, err = f.w.store.Put(ctx, repo.HeadKey(channel), bucket.Bytes(b), cond)
	must(t, err)
}

// publish signs a release of one page that holds the entries, with correct totals.
func (f *forger) publish(first string, entries ...anyEntry) {
	f.w.t.Helper()
	rel := manifest.Release{}
	var sum manifest.TreeHash
	for _, e := range entries {
		sum.Add(manifest.Kind(e.Kind), e.Path, e.Digest)
		if e.Kind == uint8(manifest.Dir) {
			rel.Totals.Dirs++
		} else {
			rel.Totals.Files++
			rel.Totals.Bytes += e.Size
		}
	}
	rel.Tree = sum.Sum()
	rel.Pages = []manifest.PageRef{{ID: f.store(f.page(entries...))[0], First: first, Entries: int64(len(entries))}}
	f.release(&rel)
}

// within returns an entry together with its parent folders.
func within(e anyEntry) (all []anyEntry) {
	for i, c := range e.Path {
		if c == '/' {
			all = append(all, anyEntry{Path: e.Path[:i], Kind: uint8(manifest.Dir), Mode: 0o755})
		}
	}
	return append(all, e)
}

// refused pulls into a new folder inside a folder of its own. The test fails unless the pull returns an error with
// these words and leaves nothing behind, neither in the folder nor around it.
func (w *world) refused(what string, words ...string) error {
	w.t.Helper()
	around := w.t.TempDir()
	site := around + "/site"
	p, err := w.pull(site, nil)
	if err == nil {
		w.t.Errorf("%s: verdict %q, no error: %v", what, p.Verdict, p.files)
	} else {
		says(w.t, fmt.Errorf("%s: %w", what, err), words...)
	}
	for name, is := range look(w.t, around) {
		if name != "site" && !isState(name) {
			w.t.Errorf("%s: there is %s, %s", what, name, is)
		}
	}
	return err
}

func isState(name string) bool {
	const state = "site/" + manifest.StateDir
	return name == state || len(name) > len(state) && name[:len(state)+1] == state+"/"
}
