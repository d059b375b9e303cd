package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot returns the whole command line.
func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "nightferry",
		Short:         "Carries a folder through an S3 bucket to other machines, and proves that it arrived",
		Long:          wrap("nightferry publishes a folder as a signed, immutable release in an S3 bucket or a directory (push), makes a folder on another machine exactly that release (pull), and proves it (verify). A Core does so for a fleet of sites by itself, and accounts for every file.", lineWidth),
		Example:       "  nightferry init file:///srv/store\n  nightferry push /srv/packages file:///srv/store package\n  nightferry pull file:///srv/store package /var/packages",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	p := root.PersistentFlags()
	p.BoolVar(&e.json, "json", false, "write one line of JSON per event to stdout")
	p.BoolVar(&e.quiet, "quiet", false, "write nothing but the answer and errors")
	p.DurationVar(&e.stats.every, "stats", 0, "without a terminal, write how far a run is every `DURATION`, such as 1m; 0 for never")
	p.StringVar(&e.stateDir, "state", "", "`DIR` for pinned keys and the newest numbers seen of repositories, and caches (or NIGHTFERRY_STATE)")
	root.AddGroup(&cobra.Group{ID: groupCarry, Title: "Carry:"}, &cobra.Group{ID: groupLook, Title: "Look:"}, &cobra.Group{ID: groupKeep, Title: "Keep:"}, &cobra.Group{ID: groupFleet, Title: "Fleet:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupCarry, newInit(e), newPush(e), newPull(e), newVerify(e))
	add(groupLook, newReleases(e), newLs(e), newCat(e), newDiff(e), newInspect(e))
	add(groupKeep, newGC(e), newFsck(e), newRollback(e), newTrust(e), newHalt(e), newResume(e))
	add(groupFleet, newCore(e), newSite(e), newDomain(e), newSecret(e), newAccess(e), newConsole(e), newPublish(e), newSync(e), newPlan(e), newLimit(e), newStatus(e), newSites(e), newWhy(e), newRuns(e), newRun(e), newJob(e), newLogs(e), newWhere(e), newExceptions(e), newIncidents(e), newAlert(e), newAudit(e))
	// Flags are wrapped as everything else is; cobra's own template has them on one line each, however long.
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages", fmt.Sprintf(".LocalFlags.FlagUsagesWrapped %d", lineWidth),
		"for more information about a command.", "for more about a command.",
		".InheritedFlags.FlagUsages", fmt.Sprintf(".InheritedFlags.FlagUsagesWrapped %d", lineWidth),
	).Replace(root.UsageTemplate()))
	root.AddCommand(newVersion(e), &cobra.Command{
		Use:   "exit-codes",
		Short: "What each exit code means",
		Long:  exitHelp(),
	}, &cobra.Command{
		Use:   "environment",
		Short: "The environment variables that are read",
		Long:  environmentHelp(),
	})
	addCompletions(root)
	return root
}

// lineWidth is how wide help texts are, in characters.
const lineWidth = 79

// Groups of verbs in the help.
const (
	groupCarry = "carry"
	groupLook  = "look"
	groupKeep  = "keep"
	groupFleet = "fleet"
)

// verb is what each command's file states of it.
type verb struct {
	use, short, long, example string
	min, max                  int    // arguments
	subject                   int    // the argument that errors name
	interrupt                 string // remedy after Ctrl-C; empty: startsOver
	run                       func(ctx context.Context, args []string) error
}

// command makes a cobra command that checks its arguments and names its act in
// errors.
func (e *env) command(v verb) *cobra.Command {
	return &cobra.Command{
		Use:     v.use,
		Short:   v.short,
		Long:    wrap(v.long, lineWidth),
		Example: examples(v.example),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < v.min || len(args) > v.max {
				e.act = strings.TrimPrefix(cmd.CommandPath(), "nightferry ")
				return fmt.Errorf("%s given: usage: %s", count(int64(len(args)), "argument"), cmd.UseLine())
			}
			return nil
		},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			e.started = true
			e.act = strings.TrimPrefix(cmd.CommandPath(), "nightferry ")
			e.onInterrupt = cmp.Or(v.interrupt, startsOver)
			if v.subject < len(args) {
				e.act += fmt.Sprintf(" %q", shownArg(args[v.subject]))
			}
			return v.run(cmd.Context(), args)
		},
	}
}

// shownArg is an argument as errors name it: a store's URL may hold what a
// person should not have typed.
func shownArg(arg string) string {
	if strings.Contains(arg, "://") {
		return shownStore(arg)
	}
	return arg
}

// examples indents command lines, and breaks those that a terminal would, as a
// shell reads them: before a word, never within quotes.
func examples(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(s)) {
		line = "  " + strings.TrimSuffix(line, "\n")
		for at := breakAt(line); at > 0; at = breakAt(line) {
			b.WriteString(line[:at] + " \\\n")
			line = "      " + line[at+1:]
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// breakAt is the last space of a command line at which it can be broken, 0 where
// it fits or has none.
func breakAt(line string) int {
	if len(line) <= lineWidth {
		return 0
	}
	at, quoted := 0, false
	for i := range min(len(line), lineWidth-1) {
		switch line[i] {
		case '\'':
			quoted = !quoted
		case ' ':
			if !quoted && strings.TrimSpace(line[:i]) != "" {
				at = i
			}
		}
	}
	return at
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}
