package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
	"nightferry/internal/verify"
)

type verifyFlags struct {
	pullFlags
	quick, repair, strict bool
	sums                  string
}

// verifyVerb compares a folder with a release.
type verifyVerb struct{ e *env }

func newVerify(e *env) *cobra.Command {
	var f verifyFlags
	var v fleetVerify
	cmd := e.command(verb{
		use:   "verify [flags] DIR [STORE CHANNEL]",
		short: "Prove that a folder is exactly a release",
		long: "Compares every byte of DIR with a release and lists what differs: missing, size, hash, time, mode, kind, unreadable, and extra for a file that the site added. Without STORE, the release is the one that the last pull into DIR recorded there; with it, that release as the store has it, signed, or the one that --release names. " +
			"With --repair, differing files are fetched again. The exit code is 3 if something differs; files that the site added count only with --strict.\n\n" +
			"With --site, --region, --domain or --all in place of DIR it orders sites to check now what lies there, whatever their windows: names, sizes and times, or with --full every byte, as fast as scrub_rate lets them. It stays until the sites that are connected have answered, and lists what differs; those that are away are named, and check when they come back. Nothing is changed there but with --repair.",
		example: "nightferry verify /var/packages\nnightferry verify --quick /var/packages\nnightferry verify --repair /var/packages file:///srv/store package\nnightferry verify --sha256sums sums.txt /var/packages && (cd /var/packages && sha256sum -c ../sums.txt)\nnightferry verify --site osaka --full\nnightferry verify --region ap --channel package --repair",
		max:     3,
		run: func(ctx context.Context, args []string) error {
			if v.given(&f) && len(args) == 0 {
				return follower{e}.verifyFleet(ctx, &f, &v)
			}
			if len(args) == 0 {
				return usage("verify", "name the folder DIR, or sites with --site, --region, --domain or --all")
			}
			if v.all || v.full || v.detach || v.channel != "" {
				return usage("verify", "--all, --full, --channel and --no-follow are for sites, not for a folder")
			}
			if len(args) == 2 {
				return usage("verify", "STORE without CHANNEL: name the channel too")
			}
			return verifyVerb{e}.verify(ctx, args, &f)
		},
	})
	f.add(cmd)
	f.addSite(cmd)
	v.add(cmd)
	fl := cmd.Flags()
	for flag, what := range map[string]string{"site": "the site", "region": "the sites of region", "domain": "the sites of domain"} {
		fl.Lookup(flag).Usage = what + " `NAME`; with DIR: used to match halt orders during --repair"
	}
	fl.StringVar(&v.channel, "channel", "", "of sites: only channel `NAME`")
	fl.BoolVar(&v.all, "all", false, "every site")
	fl.BoolVar(&v.full, "full", false, "of sites: read every byte")
	fl.BoolVar(&v.detach, "no-follow", false, "of sites: give the order, and do not wait")
	fl.Uint64Var((*uint64)(&f.release), "release", 0, "compare with release `N` of the store")
	fl.BoolVar(&f.quick, "quick", false, "compare names, sizes, times and modes only")
	fl.BoolVar(&f.repair, "repair", false, "fetch what differs from the store, reading every file")
	fl.BoolVar(&f.strict, "strict", false, "count files that the site added as differences")
	fl.StringVar(&f.sums, "sha256sums", "", "write the release's checksums to `FILE` (- for stdout), as sha256sum -c reads them, and compare nothing")
	return cmd
}

// reference is the release that a folder is compared with.
type reference struct {
	channel string
	number  trust.ReleaseNumber
	partial bool // the last pull could not do all of it
	entries func() (manifest.Next, func() error, error)
}

func (g verifyVerb) verify(ctx context.Context, args []string, f *verifyFlags) (err error) {
	dir := args[0]
	if f.repair {
		return g.repair(ctx, args, f)
	}
	ref, done, err := g.reference(ctx, args, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	next, closeEntries, err := ref.entries()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeEntries()) }()
	if f.sums != "" {
		return g.sums(f.sums, next)
	}
	ignore, err := parseIgnore(f.ignore)
	if err != nil {
		return err
	}
	began := g.e.now()
	g.e.startProgress()
	next = g.watched(next)
	totals, err := verify.Run(ctx, dir, next, verify.Options{Quick: f.quick, Ignore: ignore}, func(found verify.Finding) {
		g.e.event("finding", found)
		if !g.e.json {
			g.e.print("%-10s %s: %s", found.Problem, shown(found.Path), shown(found.Detail))
		}
	})
	g.e.endProgress()
	if err != nil {
		return err
	}
	d := g.e.now().Sub(began)
	verdict := "verified"
	bad := totals.Findings
	if f.strict {
		bad += totals.Extra
	}
	if bad > 0 {
		verdict = "different"
	} else if ref.partial {
		verdict = "incomplete"
	} else if f.quick {
		verdict = "unproven" // equal in all that was compared; no byte was read
	}
	g.e.event("result", struct {
		Channel string              `json:"channel"`
		Number  trust.ReleaseNumber `json:"release"`
		Verdict string              `json:"verdict"`
		Quick   bool                `json:"quick"`
		verify.Totals
		Seconds float64 `json:"seconds"`
	}{ref.channel, ref.number, verdict, f.quick, totals, d.Seconds()})
	g.e.summary("%s: release %s: %s: %s, %s read, %s", shown(ref.channel), group(int64(ref.number)), verdict, count(totals.Files, "file"), size(totals.Bytes), took(d))
	if verdict == "unproven" {
		g.e.summary("  names, sizes, times and modes are equal; without --quick, verify proves the bytes")
	}
	if totals.Extra > 0 {
		g.e.summary("  %s of the site's own", group(totals.Extra))
	}
	switch {
	case bad > 0:
		return &foundError{count(bad, "difference") + " found"}
	case ref.partial:
		return &incompleteError{fmt.Sprintf("the last pull did not complete release %d", ref.number), "pull again, or name STORE and CHANNEL to compare with all of it"}
	}
	return nil
}

// watched counts the entries that pass, for the progress shown.
func (g verifyVerb) watched(next manifest.Next) manifest.Next {
	m := meter{Phase: "verify"}
	return func() (*manifest.Entry, error) {
		entry, err := next()
		if entry != nil && entry.Kind == manifest.File {
			m.Files, m.Bytes = m.Files+1, m.Bytes+entry.Size
			if m.Files&63 == 0 {
				g.e.tell(m)
			}
		}
		return entry, err
	}
}

// reference finds the release to compare with.
func (g verifyVerb) reference(ctx context.Context, args []string, f *verifyFlags) (*reference, func() error, error) {
	nothing := func() error { return nil }
	if err := notFile("verify", args[0], "name the folder that a pull has filled"); err != nil {
		return nil, nil, err
	}
	applied, err := appliedIn(args[0])
	if err != nil {
		return nil, nil, err
	}
	if len(args) == 1 {
		if f.release != 0 {
			return nil, nil, usage("verify", "--release %d: name STORE and CHANNEL too", f.release)
		}
		if applied == nil {
			return nil, nil, &absentError{"no pull has recorded a release there", "name STORE and CHANNEL to compare with"}
		}
		return &reference{applied.Channel, applied.Number, !applied.Complete, func() (manifest.Next, func() error, error) { return recorded(args[0]) }}, nothing, nil
	}
	s, err := g.e.open(ctx, args[1], &f.storeFlags)
	if err != nil {
		return nil, nil, err
	}
	number := f.release
	if number == 0 && applied != nil && applied.Repo == [16]byte(s.ID()) && applied.Channel == args[2] {
		number = applied.Number
	}
	rel, err := s.release(ctx, args[2], number)
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return &reference{rel.Channel, rel.Number, false, func() (manifest.Next, func() error, error) {
		next, pages, err := s.entries(ctx, rel)
		return next, pages.done, err
	}}, s.close, nil
}

// catalogueOf is where a pull records in its target what it has applied.
const catalogueOf = manifest.StateDir + "/catalogue"

// appliedIn says which release was applied in a folder; nil: none is known.
func appliedIn(dir string) (*scan.Header, error) {
	root, err := durable.Open(dir, durable.Options{})
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c, err := scan.OpenCatalogue(root, catalogueOf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the record of the applied release: %w: pull again, which makes it anew", err)
	}
	defer func() { _ = c.Close() }() // it was only read
	h := c.Header()
	return &h, nil
}

// recorded streams what the last pull recorded.
func recorded(dir string) (manifest.Next, func() error, error) {
	root, err := durable.Open(dir, durable.Options{})
	if err != nil {
		return nil, nil, err
	}
	c, err := scan.OpenCatalogue(root, catalogueOf)
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	next := func() (*manifest.Entry, error) {
		rec, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return rec.Entry()
	}
	return next, func() error { return errors.Join(c.Close(), root.Close()) }, nil
}

// sums writes the release's checksums.
func (g verifyVerb) sums(file string, next manifest.Next) error {
	if file == "-" {
		return verify.Sums(g.e.stdout, next)
	}
	dir, err := durable.Open(filepath.Dir(file), durable.Options{})
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.WriteStream(filepath.Base(file), 0o644, func(w io.Writer) error { return verify.Sums(w, next) })
}

// repair is a pull of the release that is there already, reading every byte.
func (g verifyVerb) repair(ctx context.Context, args []string, f *verifyFlags) error {
	if len(args) != 3 {
		return usage("verify", "--repair: name STORE and CHANNEL, from which to fetch what differs")
	}
	if f.quick || f.strict || f.sums != "" {
		return usage("verify", "--repair reads every byte and goes with none of --quick, --strict, --sha256sums")
	}
	if _, err := os.Stat(args[0]); err != nil {
		return err // a pull would make the folder
	}
	applied, err := appliedIn(args[0])
	if err != nil {
		return err
	}
	g.e.onInterrupt = resumes
	p := f.pullFlags
	p.rehash = true
	if p.release == 0 && applied != nil && applied.Channel == args[2] {
		p.release = applied.Number
	}
	return pullVerb(g).pull(ctx, args[1], args[2], args[0], &p)
}
