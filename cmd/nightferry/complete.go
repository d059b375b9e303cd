package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/config"
	"nightferry/internal/query"
)

// addCompletions lets the shell complete the names that the Core's
// configuration has, for every command below root that takes them.
func addCompletions(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		addCompletions(cmd)
	}
	for flag, names := range namesOf {
		if f := root.LocalNonPersistentFlags().Lookup(flag); f != nil && f.Value.Type() == "string" {
			_ = root.RegisterFlagCompletionFunc(flag, completeNames(names)) // fails only for a flag that is not there
		}
	}
	if root.LocalNonPersistentFlags().Lookup("problems") != nil {
		_ = root.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(query.States(), cobra.ShellCompDirectiveNoFileComp))
	}
	var args []string // which names the arguments take, in order
	switch root.CommandPath() {
	case "nightferry why", "nightferry exceptions":
		args = []string{"site", "channel"}
	case "nightferry site token", "nightferry site revoke", "nightferry site confirm":
		args = []string{"site"}
	case "nightferry domain revoke":
		args = []string{"domain"}
	case "nightferry publish":
		args = slices.Repeat([]string{"channel"}, 100)
	}
	if args != nil {
		root.ValidArgsFunction = func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(given) >= len(args) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeNames(namesOf[args[len(given)]])(cmd, given, begun)
		}
	}
}

// namesOf lists the names of one sort in a configuration, by the flag that takes them.
var namesOf = map[string]func(*config.Config) []string{
	"site": func(c *config.Config) (out []string) {
		for _, x := range c.Fleet.Sites {
			out = append(out, x.Name)
		}
		return out
	},
	"region": func(c *config.Config) (out []string) {
		for _, x := range c.Fleet.Regions {
			out = append(out, x.Name)
		}
		return out
	},
	"domain": func(c *config.Config) (out []string) {
		for _, x := range c.Fleet.Domains {
			out = append(out, x.Name)
		}
		return out
	},
	"channel": func(c *config.Config) (out []string) {
		for _, x := range c.Fleet.Channels {
			out = append(out, x.Name)
		}
		return out
	},
}

// completeNames reads the configuration that the command line names so far. A
// configuration that cannot be read completes nothing.
func completeNames(names func(*config.Config) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		var f coreFlags
		if flag := cmd.Flags().Lookup("config"); flag != nil {
			f.config = flag.Value.String()
		}
		c, _, err := f.load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all := slices.DeleteFunc(names(c), func(n string) bool { return !strings.HasPrefix(n, begun) })
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
