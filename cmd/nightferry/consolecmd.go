package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/durable"
)

func newConsole(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "console",
		Short:   "Sign in to the console by a link, and list and end sessions",
		Long:    wrap("The console is served at the address listen.console of the configuration. People sign in through an identity provider (signin), or by a link that is made on the Core's machine.", lineWidth),
		Example: examples("nightferry console link\nnightferry console sessions"),
	}
	cmd.AddCommand(newConsoleLink(e), newConsoleSessions(e), newConsoleEnd(e), newConsoleCertificate(e))
	return cmd
}

func newConsoleLink(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:   "link [flags]",
		short: "Print a link that signs you in to the console, once",
		long: "Prints an address that signs you in to the console once, within five minutes, with the rights of this account. It works without an identity provider. Only accounts that may use the Core's local socket get one. " +
			"Each use opens an incident, sends a mail and is audited.",
		example: "nightferry console link",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			l, err := api.ConsoleCalls{Client: a}.Link(ctx)
			if err != nil {
				return err
			}
			e.event("console_link", l)
			if e.json {
				return nil
			}
			if err := keepPrivate(e.stdout); err != nil {
				e.warn("the link goes into a file that others may read: %v", err)
			}
			e.print("%s", l.URL)
			e.warn("good once, until %s; each use opens an incident", stamp(l.Until))
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func newConsoleSessions(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "sessions [flags]",
		short:   "List the people who have signed in to the console",
		long:    "Lists the sessions of the console, the newest first. A session ends after an hour without a request, and after twelve hours in any case.",
		example: "nightferry console sessions",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := api.ConsoleCalls{Client: a}.Sessions(ctx)
			if err != nil {
				return err
			}
			t := table{head: []string{"ID", "PERSON", "FROM", "SINCE", "LAST SEEN"}, cut: []int{1, 2}}
			for i := range list {
				e.event("session", &list[i])
				t.add(list[i].ID, list[i].Person, list[i].Address, minute(list[i].Started), minute(list[i].Seen))
			}
			e.show(&t, "no one has signed in to the console")
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

func newConsoleEnd(e *env) *cobra.Command {
	var f coreFlags
	var q api.SessionEnd
	cmd := e.command(verb{
		use:     "end [flags] [ID]",
		short:   "End a session of the console",
		long:    "Ends the session ID, or with --person all sessions of a person. The next request is refused. To keep a person out, remove their role at the identity provider, too.",
		example: "nightferry console end 5f0c9a1e\nnightferry console end --person 'user kay@example.com'",
		max:     1,
		run: func(ctx context.Context, args []string) error {
			if (len(args) == 0) == (q.Person == "") {
				return usage("console end", "name a session, or a person with --person")
			}
			if len(args) > 0 {
				q.ID = args[0]
			}
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := api.ConsoleCalls{Client: a}.End(ctx, q)
			if err != nil {
				return err
			}
			for i := range list {
				e.event("session_ended", &list[i])
				e.summary("session %s of %s has ended", list[i].ID, shown(list[i].Person))
			}
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&q.Person, "person", "", "all sessions of the person `NAME`, as console sessions lists it")
	return cmd
}

func newConsoleCertificate(e *env) *cobra.Command {
	var f coreFlags
	var out string
	cmd := e.command(verb{
		use:     "certificate [flags]",
		short:   "Print the certificate of the Core's authority",
		long:    "Prints the certificate (PEM) of the authority that made the console's certificate. Browsers and NIGHTFERRY_CORE_CA trust the console by it. It is public. There is none if the configuration names certificate files of your own.",
		example: "nightferry console certificate -o core-ca.pem",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			c, err := api.ConsoleCalls{Client: a}.Address(ctx)
			if err != nil {
				return err
			}
			switch {
			case c.URL == "":
				return &absentError{"the console is off", "set listen.console in the configuration, and restart the Core"}
			case c.Authority == "":
				return &absentError{"the console's certificate is of files of your own", "trust the authority that made it"}
			}
			e.event("console_certificate", c)
			if out != "" {
				if err := durable.WritePrivate(out, []byte(c.Authority)); err != nil {
					return fmt.Errorf("write the certificate: %w", err)
				}
				e.summary("%s: trust it for %s", shown(out), c.URL)
			} else if !e.json {
				e.print("%s", c.Authority)
			}
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().StringVarP(&out, "out", "o", "", "write it into the new `FILE`")
	return cmd
}
