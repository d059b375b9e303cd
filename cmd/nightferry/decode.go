package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/index"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/seal"
	"nightferry/internal/trust"
)

// signature is the verdict on a signed object.
type signature struct {
	Repo    trust.RepoID `json:"repo"`
	Scope   string       `json:"scope"`  // the channel's name in keys
	Number  uint64       `json:"number"` // of the release, trust document or halt epoch
	Signer  trust.Public `json:"signer"`
	Verdict string       `json:"verdict"` // of the signature by itself
	Trust   string       `json:"trust"`   // whether the signer may sign this
}

// decode fills in what b says. What it returns is why it does not say more.
func (in *inspector) decode(out *artefact, b []byte) (err error) {
	switch out.Kind {
	case repo.FormatKind:
		out.Content, err = repo.DecodeFormat(b)
	case index.RootKind:
		out.Content, err = index.DecodeRoot(b)
	case manifest.PageKind:
		out.Content, err = manifest.DecodePage(b, false)
	case manifest.ListKind:
		var l struct {
			_      struct{}    `cbor:",toarray"`
			Chunks []chunk.Ref `json:"chunks"`
		}
		err = frame.Decode(manifest.ListKind, manifest.ListVersion, manifest.MaxPage, b, &l)
		out.Content = l.Chunks
	case pack.Kind:
		err = in.pack(out, b)
	case index.Kind:
		err = in.segment(out, b)
	case trust.DocKind:
		err = in.signed(out, b, trust.DocVersion, trust.MaxDoc, func(p []byte) (any, error) { return trust.DecodeDoc(p) })
	case trust.HeadKind:
		err = in.signed(out, b, trust.HeadVersion, trust.MaxHead, func(p []byte) (any, error) { return trust.DecodeHead(p) })
	case halt.Kind:
		err = in.signed(out, b, halt.Version, halt.Max, func(p []byte) (any, error) { return halt.Decode(p) })
	case manifest.ReleaseKind:
		err = in.signed(out, b, manifest.ReleaseVersion, manifest.MaxRelease, func(p []byte) (any, error) { return manifest.DecodeRelease(p) })
	default:
		err = &frame.NewerError{Kind: out.Kind, Version: out.Version}
	}
	return err
}

// sealedPayload reports whether the payload of a kind is sealed in an
// encrypted repository. Heads and trust documents are not.
func sealedPayload(kind string) bool { return kind == manifest.ReleaseKind || kind == halt.Kind }

func (in *inspector) signed(out *artefact, b []byte, version uint16, max int, decode func([]byte) (any, error)) error {
	s, err := trust.Parse(out.Kind, version, max, b)
	if err != nil {
		return err
	}
	sig := signature{Repo: s.Subject.Repo, Scope: s.Subject.Scope, Number: s.Subject.Number, Signer: s.Signer, Verdict: "good", Trust: in.trusted(s)}
	if err := s.Verify(s.Subject); err != nil {
		sig.Verdict = err.Error()
	}
	out.Signature = &sig
	content, err := decode(s.Payload)
	if err != nil && sealedPayload(out.Kind) {
		plain, openErr := in.open(s)
		if openErr != nil {
			out.Sealed = true
			return openErr
		}
		switch {
		case plain != nil:
			out.Sealed = true
			content, err = decode(plain)
		case errors.Is(in.why, repo.ErrKey):
			out.Sealed = true
			return sealedError()
		}
	}
	if err != nil {
		return err
	}
	out.Content = content
	if sig.Verdict != "good" {
		return fmt.Errorf("%w: %s", trust.ErrUntrusted, sig.Verdict)
	}
	return nil
}

// trusted says whether the repository's trust document lets the signer sign.
func (in *inspector) trusted(s *trust.Signed) string {
	if in.repo == nil {
		if in.why != nil {
			return "not known: " + in.why.Error()
		}
		return "not known: give STORE KEY to see it against the repository's keys"
	}
	if s.Subject.Kind == trust.DocKind {
		if s.Signer == in.repo.Trust().Root() {
			return "good: signed by the root key"
		}
		return fmt.Sprintf("not trusted: the root key is %s", in.repo.Trust().Root())
	}
	doc, _ := in.repo.Trust().Current()
	role := map[string]trust.Role{manifest.ReleaseKind: trust.Releases, trust.HeadKind: trust.Heads, halt.Kind: trust.Halts}[s.Subject.Kind]
	if err := doc.Allows(s.Signer, role); err != nil {
		return err.Error()
	}
	return "good: by a key that is " + doc.Find(s.Signer).Status.String()
}

// keys returns the keys of an encrypted repository, nil where they are not
// known or none are needed.
func (in *inspector) keys(id trust.RepoID) (*seal.Keys, error) {
	if in.repo != nil {
		return in.repo.Keys(), nil
	}
	if in.key == nil || id == (trust.RepoID{}) {
		return nil, nil
	}
	return seal.NewKeys(in.key, id)
}

// open opens a sealed payload; nil where no key is at hand.
func (in *inspector) open(s *trust.Signed) ([]byte, error) {
	keys, err := in.keys(s.Subject.Repo)
	if err != nil || keys == nil || len(s.Payload) < seal.SaltSize {
		return nil, err
	}
	obj, err := keys.Object(s.Subject.Kind, s.Payload[:seal.SaltSize])
	if err != nil {
		return nil, err
	}
	return obj.Open(nil, s.Payload[seal.SaltSize:], 0)
}

// sealedError says that content is hidden from who has no key.
func sealedError() error {
	return fmt.Errorf("%w: it is sealed: give STORE KEY and the repository's key to see inside", repo.ErrKey)
}

func (in *inspector) pack(out *artefact, b []byte) error {
	salt, err := pack.ParsePrelude(pack.Kind, pack.Version, b)
	if err != nil {
		return err
	}
	out.Sealed = salt != nil
	keys, err := in.keys(trust.RepoID{})
	if err != nil {
		return err
	}
	if out.Sealed && keys == nil {
		return sealedError()
	}
	footer, _, err := pack.Parse(keys, b)
	if footer != nil {
		out.Content = footer
	}
	return err
}

// segmentContent is a segment's footer, and its records where asked for.
type segmentContent struct {
	*index.Footer
	All []segmentRecord `json:"all,omitempty"`
}

type segmentRecord struct {
	ID     digest.Digest `json:"id"`
	Pack   digest.Digest `json:"pack"`
	Block  uint32        `json:"block"`
	Stored uint32        `json:"stored"`
	Offset uint32        `json:"offset"`
	Size   uint32        `json:"size"`
}

func (in *inspector) segment(out *artefact, b []byte) error {
	salt, err := pack.ParsePrelude(index.Kind, index.Version, b)
	if err != nil {
		return err
	}
	out.Sealed = salt != nil
	keys, err := in.keys(trust.RepoID{})
	if err != nil {
		return err
	}
	if out.Sealed && keys == nil {
		return sealedError()
	}
	obj, err := keys.Object(index.Kind, salt)
	if err != nil {
		return err
	}
	at := in.footerAt(b, out.SHA256, obj.Overhead())
	if at < 0 || at > int64(len(b)) {
		return fmt.Errorf("no footer is found in the segment: %w", frame.ErrDamaged)
	}
	footer, err := index.ParseFooter(obj, b[at:], at)
	if err != nil {
		return err
	}
	content := segmentContent{Footer: footer}
	out.Content = &content
	for i := range footer.Pages {
		off, n := footer.PageRange(i, obj.Overhead())
		if off+n > at {
			return fmt.Errorf("page %d of the segment reaches into its footer: %w", i, frame.ErrDamaged)
		}
		recs, err := footer.OpenPage(obj, i, b[off:off+n])
		if err != nil {
			return err
		}
		for j := 0; in.records && j < recs.Len(); j++ {
			r := recs.At(j)
			content.All = append(content.All, segmentRecord{r.ID, footer.Packs[r.Pack].Digest, r.At.Block, r.At.Stored, r.At.Offset, r.At.Size})
		}
	}
	return nil
}

// footerAt finds a segment's footer: where the index root says, or else, in a
// plain segment, the only place where the number of records that the footer
// begins with is the number that fits before it.
func (in *inspector) footerAt(b []byte, d digest.Digest, overhead int) int64 {
	if in.root != nil {
		for _, s := range in.root.Segments {
			if s.Digest == d {
				return s.Footer
			}
		}
	}
	if overhead > 0 {
		return -1
	}
	for n := uint64(0); n <= math.MaxUint32; n++ {
		at := pack.PreludeSize + int64(n)*index.RecordSize
		if at >= int64(len(b)) {
			return -1
		}
		count, err := frame.Marshal(n)
		if err == nil && b[at] == 0x83 && bytes.HasPrefix(b[at+1:], count) {
			if f, err := index.ParseFooter(nil, b[at:], at); err == nil && f.Records == n {
				return at
			}
		}
	}
	return -1
}
