package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/durable"
	"nightferry/internal/mail"
	"nightferry/internal/text"
	"nightferry/internal/vault"
)

// vaultVerbs changes and lists secrets, with or without a running Core.
type vaultVerbs struct{ e *env }

func newSecret(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Set, list and rotate the Core's secrets",
		Long: wrap("The vault holds credentials and keys by name, encrypted under the master key. Values come from standard input or a file, never from a command line, and no command shows one. Each access is noted in the audit. "+
			"These commands ask the running Core, or else open the vault themselves.", lineWidth),
		Example: examples("nightferry secret set s3 < credentials\nnightferry secret list"),
	}
	cmd.AddCommand(newSecretSet(e), newSecretList(e), newSecretRotate(e), newSecretRekey(e))
	return cmd
}

func newSecretSet(e *env) *cobra.Command {
	var f coreFlags
	var file string
	cmd := e.command(verb{
		use:   "set [flags] NAME",
		short: "Store a value under a name",
		long: "Reads a value from standard input, or from --file, and stores it as a new version of NAME; a line end after it is dropped. Names that mean something: s3 (access key, secret key and, if any, session token, separated by spaces; the environment comes first), " +
			"domain/NAME/account, domain/NAME/proxy, smtp (user and password, separated by a space), webhook (the URL and, if it needs one, a bearer token, separated by a space).",
		example: "nightferry secret set s3 < credentials\nnightferry secret set domain/apac/proxy --file /root/proxy.txt",
		min:     1, max: 2, // a second one is refused by name
		run: func(ctx context.Context, args []string) error {
			if len(args) > 1 {
				return noValue("secret set")
			}
			if err := settable(args[0]); err != nil {
				return err
			}
			value, err := vaultVerbs{e}.secretValue(args[0], file)
			if err != nil {
				return err
			}
			return vaultVerbs{e}.changeSecret(ctx, &f, false, api.SecretRequest{Name: args[0], Value: value})
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&file, "file", "", "read the value from `FILE`")
	return cmd
}

// noValue refuses a value as an argument: the process list, the shell's
// history and the audit of the system would all hold it.
func noValue(cmd string) error {
	return usage(cmd, "a value is never given on the command line, where others can read it: this one should be replaced wherever it is in use; give the new one on standard input or with --file")
}

// settable refuses what only the Core can make.
func settable(name string) error {
	if err := vault.CheckName(name); err != nil {
		return usage("secret", "%w", err)
	}
	if name == core.SecretRelease {
		return nil // the root key vouches for another one
	}
	first, rest, _ := strings.Cut(name, "/")
	if first == "bus" || first == "ca" || first == "core" || first == "repository" || first == "domain" && strings.HasSuffix(rest, "/signing") {
		return &refusedError{fmt.Sprintf("%s is a key that the Core makes itself: another value would cut every site off", name), "to replace a domain's signing key: nightferry secret rotate domain/NAME/signing"}
	}
	return nil
}

// secretValue reads a value from the file, or from standard input.
func (g vaultVerbs) secretValue(name, file string) ([]byte, error) {
	var b []byte
	var err error
	if file != "" {
		if b, err = text.ReadFile(durable.ReadTrusted, file, 4*vault.MaxValue); err != nil {
			return nil, fmt.Errorf("read the value: %w", err)
		}
	} else if b, err = g.e.typed("value of " + name); err != nil {
		return nil, err
	}
	if b, err = text.Value(b); err != nil {
		return nil, usage("secret", "the value of %s: %w", name, err)
	}
	if len(b) == 0 || len(b) > vault.MaxValue {
		return nil, usage("secret", "the value has %d bytes: want 1 to %d", len(b), vault.MaxValue)
	}
	if name == core.SecretWebhook {
		if _, err := mail.ParseHook(string(b)); err != nil {
			return nil, usage("secret", "the value of %s: %w", name, err)
		}
	}
	return b, nil
}

func newSecretList(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "list [flags]",
		short:   "List names and versions, without values",
		long:    "Lists the secrets in the vault: names, versions and when each was made. It shows no value.",
		example: "nightferry secret list",
		run: func(ctx context.Context, _ []string) error {
			var list []api.Secret
			err := vaultVerbs{e}.secrets(ctx, &f, nil, func(ctx context.Context, c *api.Client) (err error) {
				list, err = c.Secrets(ctx)
				return err
			}, func(ctx context.Context, v *vault.Vault) (err error) {
				found, err := v.List(ctx)
				list = api.SecretViews(found)
				return err
			})
			if err != nil {
				return err
			}
			t := table{head: []string{"NAME", "VERSIONS", "NEWEST", "MADE"}, right: map[int]bool{1: true, 2: true}, cut: []int{0}}
			for _, i := range list {
				e.event("secret", i)
				newest := i.Versions[len(i.Versions)-1]
				t.add(i.Name, group(int64(len(i.Versions))), number(uint64(newest.Version)), minute(newest.Created))
			}
			e.show(&t, "the vault is empty")
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func newSecretRotate(e *env) *cobra.Command {
	var f coreFlags
	var file string
	var prune bool
	cmd := e.command(verb{
		use:   "rotate [flags] NAME",
		short: "Replace a value that exists",
		long: "Stores a new version of NAME, which must exist, from standard input or --file; the Core uses it at once. For domain/NAME/signing it makes the new key itself: every site that is connected gets a credential by it at once, the others when they come back. For repository/release give the file of a key that nightferry trust rotate has made. " +
			"The versions before it stay until --prune removes them; a site that still relies on a domain's old key is then cut off.",
		example: "nightferry secret rotate s3 < credentials\nnightferry secret rotate domain/apac/signing\nnightferry secret rotate domain/apac/signing --prune\nnightferry secret rotate repository/release --file nightferry-release-1a2b3c4d.key",
		min:     1, max: 2,
		run: func(ctx context.Context, args []string) error {
			if len(args) > 1 {
				return noValue("secret rotate")
			}
			r := api.SecretRequest{Name: args[0], Prune: prune}
			switch {
			case isSigning(r.Name) && !prune:
				seed, err := bus.NewDomainSeed()
				if err != nil {
					return fmt.Errorf("make a signing key: %w", err)
				}
				r.Value = seed
			case isSigning(r.Name): // drops the old ones, which sites have left by now
			default:
				if err := settable(r.Name); err != nil {
					return err
				}
				var err error
				if r.Value, err = (vaultVerbs{e}).secretValue(r.Name, file); err != nil {
					return err
				}
			}
			return vaultVerbs{e}.changeSecret(ctx, &f, true, r)
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&file, "file", "", "read the value from `FILE`")
	cmd.Flags().BoolVar(&prune, "prune", false, "remove the versions before the newest; of a signing key, make no new one")
	return cmd
}

func isSigning(name string) bool {
	return strings.HasPrefix(name, "domain/") && strings.HasSuffix(name, "/signing")
}

// applySecret changes the vault; it is the same with and without a daemon.
func applySecret(ctx context.Context, v *vault.Vault, rotate bool, r api.SecretRequest) (a api.SecretChange, err error) {
	a.Name = r.Name
	switch {
	case rotate && r.Value != nil:
		a.Version, err = v.Rotate(ctx, r.Name, r.Value)
	case r.Value != nil:
		a.Version, err = v.Set(ctx, r.Name, r.Value)
	case !r.Prune:
		return a, usage("secret", "no value")
	}
	if err == nil && r.Prune {
		a.Removed, err = v.Prune(ctx, r.Name, 1)
	}
	return a, err
}

func (g vaultVerbs) changeSecret(ctx context.Context, f *coreFlags, rotate bool, r api.SecretRequest) error {
	var a api.SecretChange
	err := g.secrets(ctx, f, &r, func(ctx context.Context, c *api.Client) (err error) {
		a, err = c.ChangeSecret(ctx, rotate, r)
		return err
	}, func(ctx context.Context, v *vault.Vault) (err error) {
		a, err = applySecret(ctx, v, rotate, r)
		return err
	})
	if err != nil {
		return err
	}
	g.e.event("secret", a)
	if a.Version > 0 {
		g.e.summary("%s: version %d stored", shown(a.Name), a.Version)
	}
	if r.Prune {
		g.e.summary("%s: %s removed", shown(a.Name), count(int64(a.Removed), "older version"))
	}
	return nil
}

// secrets asks the running Core, or else opens the vault. change is nil for a list.
func (g vaultVerbs) secrets(ctx context.Context, f *coreFlags, change *api.SecretRequest, online func(context.Context, *api.Client) error, offline func(context.Context, *vault.Vault) error) error {
	a, err := f.client()
	if err != nil {
		return err
	}
	defer a.Close()
	err = online(ctx, a)
	if !errors.Is(err, api.ErrDown) {
		return err
	}
	o, _, err := g.offline(ctx, f)
	if err != nil {
		return err
	}
	ctx = core.WithActor(ctx, username())
	if r := change; r != nil && r.Name == core.SecretRelease && r.Value != nil {
		if err := g.mayRelease(ctx, f, o, r.Value); err != nil {
			return errors.Join(err, &refusedError{r.Name + " stays as it is", "give the key file that nightferry trust rotate has made"}, o.Close())
		}
	}
	return errors.Join(offline(ctx, o.Vault), o.Close())
}

// mayRelease asks the repository whether it trusts a key.
func (g vaultVerbs) mayRelease(ctx context.Context, f *coreFlags, o *core.Offline, key []byte) error {
	c, _, err := f.load()
	if err != nil {
		return err
	}
	return o.MayRelease(ctx, core.Options{Data: c.Data, StoreURL: c.Store, Store: g.e.coreStore(), Env: os.Getenv, Now: g.e.now}, key)
}

// offline opens vault and ledger of a Core that does not run.
func (g vaultVerbs) offline(ctx context.Context, f *coreFlags) (*core.Offline, string, error) {
	c, _, err := f.load()
	if err != nil {
		return nil, "", err
	}
	master, err := vault.LoadMaster(c.MasterKeyFile, os.Getenv)
	if err != nil {
		return nil, "", err
	}
	o, err := core.OpenOffline(core.WithActor(ctx, username()), c.Data, master, g.e.now)
	if errors.Is(err, durable.ErrBusy) {
		err = fmt.Errorf("%w; a Core starts or stops just now: try again", err)
	}
	return o, c.MasterKeyFile, err
}

func newSecretRekey(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:   "rekey [flags]",
		short: "Encrypt the whole vault under a new master key",
		long: "Makes a new master key, encrypts every secret anew under it and replaces the key file. A crash at any time leaves files that open. The Core must be stopped for it, and copies of the old key file are worth nothing afterwards but for old copies of the vault. " +
			"Where NIGHTFERRY_MASTER_KEY holds the key there is no file to replace: it is refused.",
		example: "nightferry secret rekey",
		run: func(ctx context.Context, _ []string) error {
			if os.Getenv(vault.MasterEnv) != "" {
				return &refusedError{"the master key comes from " + vault.MasterEnv + ", so that there is no file to replace", "put the key into a file that only the Core's account can read, unset the variable, and rekey"}
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			_, err = a.Health(ctx)
			if !errors.Is(err, api.ErrDown) {
				return errors.Join(err, &refusedError{"the Core is running, and holds the vault open under the old key", "stop it first: it is a matter of seconds, and sites go on meanwhile"})
			}
			o, file, err := vaultVerbs{e}.offline(ctx, &f)
			if err != nil {
				return err
			}
			if err := errors.Join(o.Vault.RekeyFile(core.WithActor(ctx, username()), file), o.Close()); err != nil {
				return err
			}
			e.event("rekeyed", struct {
				File string `json:"file"`
			}{file})
			e.summary("the vault is encrypted under the new master key in %s\nKeep a copy of it elsewhere; without it the vault is lost.", shown(file))
			return nil
		},
	})
	f.add(cmd)
	return cmd
}
