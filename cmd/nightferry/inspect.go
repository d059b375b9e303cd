package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/repo"
)

// maxInspect bounds what inspect reads. The largest object is a segment.
const maxInspect = 1 << 30

func newInspect(e *env) *cobra.Command {
	var f storeFlags
	var records bool
	cmd := e.command(verb{
		use:   "inspect [flags] FILE | STORE KEY",
		short: "Show any artefact of a repository as JSON",
		long: "Decodes one object, from a file or from a store by its key, and prints all it says as JSON, with the verdict on its signature if it has one. " +
			"It never changes anything, trusts nothing, and works on a damaged repository too. A manifest or chunk-list page, which is a chunk in some pack, has the key chunk/ID.",
		example: "nightferry inspect file:///srv/store channels/package/head\nnightferry inspect file:///srv/store index/root\nnightferry inspect ./trust/1",
		min:     1, max: 2, subject: 0,
		run: func(ctx context.Context, args []string) error {
			return e.inspect(ctx, args, records, &f)
		},
	})
	f.add(cmd)
	cmd.Flags().BoolVar(&records, "records", false, "of an index segment, list every record too")
	return cmd
}

// artefact is what inspect says of one object.
type artefact struct {
	Object    string        `json:"object"`
	Kind      string        `json:"kind"`
	Version   uint16        `json:"version"`
	Size      int           `json:"size"`
	SHA256    digest.Digest `json:"sha256"`
	Sealed    bool          `json:"sealed,omitempty"`
	Signature *signature    `json:"signature,omitempty"`
	Content   any           `json:"content,omitempty"`
	Problem   string        `json:"problem,omitempty"` // why content is not, or not all, shown
}

func (e *env) inspect(ctx context.Context, args []string, records bool, f *storeFlags) (err error) {
	in := &inspector{records: records}
	if in.key, err = repositoryKey(f.keyFile); err != nil {
		return err
	}
	var b []byte
	var name string
	if len(args) == 1 {
		name = args[0]
		if b, err = readLocal(name); err != nil {
			return err
		}
	} else {
		name = args[1]
		var done func() error
		if b, done, err = e.inspectStore(ctx, args[0], name, in, f); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
	}
	out := artefact{Object: name, Kind: frame.Kind(b), Size: len(b), SHA256: digest.Of(b)}
	if out.Kind == "" {
		return fmt.Errorf("%q does not begin as an artefact of nightferry does: %w", shown(name), frame.ErrDamaged)
	}
	out.Version = frame.Version(b)
	problem := in.decode(&out, b)
	if problem != nil {
		out.Problem = problem.Error()
	}
	if e.json {
		e.event("artefact", out)
		return problem
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	e.print("%s", escapeJSONText(text))
	return problem
}

// escapeJSONText is escapeJSON for indented JSON, whose line breaks stay.
func escapeJSONText(b []byte) string {
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		lines[i] = string(escapeJSON([]byte(l)))
	}
	return strings.Join(lines, "\n")
}

func readLocal(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxInspect {
		return nil, fmt.Errorf("%q is no file of at most %s", shown(path), size(maxInspect))
	}
	return os.ReadFile(path)
}

// inspectStore reads an object of a store. A repository that does not open is
// no hindrance: that may be why somebody looks.
func (e *env) inspectStore(ctx context.Context, rawURL, key string, in *inspector, f *storeFlags) ([]byte, func() error, error) {
	none := func() error { return nil }
	s, openErr := e.open(ctx, rawURL, f)
	if openErr == nil {
		in.repo = s.Repo
		if x, err := s.Index(ctx); err == nil {
			in.root = x.Root()
		}
		none = s.close
	} else {
		in.why = openErr
	}
	if id, ok := strings.CutPrefix(key, "chunk/"); ok {
		if openErr != nil {
			return nil, none, openErr
		}
		b, err := s.chunk(ctx, id)
		if err != nil {
			err = errors.Join(err, s.close())
		}
		return b, none, err
	}
	store, err := e.openStore(ctx, rawURL, f, false)
	if err != nil {
		return nil, none, err
	}
	b, err := readObject(ctx, store, key, maxInspect)
	if err != nil && openErr == nil {
		err = errors.Join(err, s.close())
	}
	return b, none, err
}

// chunk reads one chunk by its id.
func (s *session) chunk(ctx context.Context, text string) ([]byte, error) {
	id, err := digest.Parse(text)
	if err != nil {
		return nil, usage("inspect", "chunk/%s: %w", text, err)
	}
	index, err := s.Index(ctx)
	if err != nil {
		return nil, err
	}
	pages := repo.NewMemoryPages()
	at := func(context.Context) (*repo.Index, error) { return index, nil }
	if err := s.Manifests(pages).Load(ctx, at, []digest.Digest{id}, s.fetch()); err != nil {
		return nil, err
	}
	b, _ := pages.Load(id)
	return b, nil
}

// inspector is what is known about the repository that an object comes from.
type inspector struct {
	key     []byte      // repository key, if given
	repo    *repo.Repo  // nil: a file, or the repository does not open
	root    *index.Root // nil: not known
	why     error       // why the repository does not open
	records bool
}
