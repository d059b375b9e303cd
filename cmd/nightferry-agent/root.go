package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// collectPercent bounds the memory of a pull as in nightferry; see there.
const collectPercent = 40

// env is the environment of one run of the program.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	json           bool
	stateDir       string
	started        bool // a verb has started: later failures are not usage errors
}

// run runs the program and returns an exit code from the table in exit.go.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectPercent)
	}
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := codeOf(err)
	if !e.started {
		code = exitUsage
	}
	e.fail(err, code)
	return code
}

// defaultState returns the state directory of a site if --state is not set.
func defaultState() string {
	if runtime.GOOS == "windows" {
		if d := os.Getenv("ProgramData"); d != "" {
			return filepath.Join(d, "nightferry-agent")
		}
	}
	return "/var/lib/nightferry-agent"
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "nightferry-agent",
		Short:         "Keeps this server's folders at the releases that its Core wants there",
		Long:          wrapText("nightferry-agent joins this server to a Core (enroll), keeps its folders at the releases that the Core wants there (run), and reports the outcome of every file. It only ever connects outwards."),
		Example:       "  nightferry-agent install --token-file token.txt --allow /srv/packages\n  nightferry-agent status",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	p := root.PersistentFlags()
	p.BoolVar(&e.json, "json", false, "write JSON, one object a line")
	p.StringVar(&e.stateDir, "state", defaultState(), "`DIR` of the site's identity and memory")
	root.AddCommand(newEnroll(e), newRun(e), newCheck(e), newInstall(e), newUninstall(e), newStatus(e), newHalt(e), newResume(e), newVersion(e),
		&cobra.Command{Use: "exit-codes", Short: "What each exit code means", Long: exitHelp()})
	root.SetUsageFunc(usageOf)
	return root
}

// usageOf prints cobra's usage with wrapped flags; cobra prints each flag on one line of any length. It does not use
// text/template: that package calls methods by name, so the linker would keep every method, 8 MB of them.
func usageOf(cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:")
	if cmd.Runnable() {
		b.WriteString("\n  " + cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n  " + cmd.CommandPath() + " [command]")
	}
	if cmd.HasExample() {
		b.WriteString("\n\nExamples:\n" + cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n\nAvailable Commands:")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(&b, "\n  %-*s %s", cmd.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	if cmd.HasAvailableLocalFlags() {
		b.WriteString("\n\nFlags:\n" + strings.TrimRight(cmd.LocalFlags().FlagUsagesWrapped(lineWidth), " \n"))
	}
	if cmd.HasAvailableInheritedFlags() {
		b.WriteString("\n\nGlobal Flags:\n" + strings.TrimRight(cmd.InheritedFlags().FlagUsagesWrapped(lineWidth), " \n"))
	}
	if cmd.HasHelpSubCommands() {
		b.WriteString("\n\nAdditional help topics:")
		for _, sub := range cmd.Commands() {
			if sub.IsAdditionalHelpTopicCommand() {
				fmt.Fprintf(&b, "\n  %-*s %s", sub.CommandPathPadding(), sub.CommandPath(), sub.Short)
			}
		}
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\nUse \"%s\" for more information about a command.", cmd.CommandPath()+" [command] --help")
	}
	_, err := fmt.Fprintln(cmd.OutOrStderr(), b.String())
	return err
}

// lineWidth is the width of help texts in characters.
const lineWidth = 79

// wrapText breaks a text into lines at its spaces.
func wrapText(text string) string { return wrapTo(text, lineWidth) }

func wrapTo(text string, most int) string {
	var b strings.Builder
	width := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
		case width+1+n > most:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}

// newCommand returns a cobra command. Errors after its arguments were accepted are not usage errors.
func (e *env) newCommand(use, short, long, example string, args cobra.PositionalArgs, do func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: wrapText(long), Example: "  " + example, Args: args, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			e.started = true
			return do(cmd.Context(), args)
		}}
}

// fail reports the error that ends the program.
func (e *env) fail(err error, code int) {
	remedy := remedyOf(err)
	for _, x := range exitTable() {
		if x.code == code && remedy == "" {
			remedy = x.remedy
		}
	}
	if e.json {
		_ = e.writeJSON(map[string]any{"event": "error", "message": err.Error(), "remedy": remedy, "code": code}) // a failure to write cannot be reported
		return
	}
	text := "nightferry-agent: " + escapeControl(err.Error())
	if remedy != "" {
		text += "\nremedy: " + escapeControl(remedy)
	}
	fmt.Fprintln(e.stderr, text)
}

// remedyOf returns the remedy that an error names; empty: none.
func remedyOf(err error) string {
	var r interface{ Remedy() string }
	if errors.As(err, &r) {
		return r.Remedy()
	}
	return ""
}

// writeJSON writes one JSON object.
func (e *env) writeJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n", b)
	return err
}

func (e *env) print(format string, args ...any) error {
	_, err := fmt.Fprintf(e.stdout, format+"\n", args...)
	return err
}

// escapeControl replaces characters that a terminal would interpret.
func escapeControl(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// version returns the version that the Go toolchain stamped into the program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func newVersion(e *env) *cobra.Command {
	return e.newCommand("version", "Print the versions of nightferry-agent and Go", "Prints the version of this program, the Go version and the system that it was built for.", "nightferry-agent version", cobra.NoArgs,
		func(context.Context, []string) error {
			if e.json {
				return e.writeJSON(map[string]string{"event": "version", "version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			return e.print("nightferry-agent %s\n%s %s/%s", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		})
}
