package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newAlert(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "alert",
		Short:   "Try whether alerts reach people",
		Long:    wrap("Incidents and morning reports are told by mail and to a webhook, as the configuration's section alerts says.", lineWidth),
		Example: examples("nightferry alert test"),
	}
	cmd.AddCommand(newAlertTest(e))
	return cmd
}

func newAlertTest(e *env) *cobra.Command {
	var f coreFlags
	var to string
	cmd := e.command(verb{
		use:     "test [flags]",
		short:   "Send a test message to every incident recipient",
		long:    "Makes the running Core send a test message to every configured recipient now, and prints the answers of the mail server and the webhook. It tries once and queues nothing. Acceptance by the server does not prove delivery: ask the recipients.",
		example: "nightferry alert test\nnightferry alert test --to ops@example.com",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			list, err := a.TestAlerts(ctx, to)
			if err != nil {
				return err
			}
			bad := int64(0)
			for _, x := range list {
				e.event("alert", x)
				switch {
				case e.json:
				case x.Error == "":
					e.print("%s: accepted", shown(x.To))
				default:
					e.print("%s: FAILED: %s", shown(x.To), shown(x.Error))
				}
				if x.Error != "" {
					bad++
				}
			}
			if bad > 0 {
				return &refusedError{count(bad, "recipient") + " could not be reached", "read the server's answer; the login is the secret smtp, the webhook's URL and token are the secret webhook"}
			}
			return nil
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&to, "to", "", "only this `ADDRESS`, which need not be in the configuration; webhook for the webhook")
	return cmd
}
