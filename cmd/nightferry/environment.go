package main

import (
	"fmt"
	"strings"

	"nightferry/internal/vault"
)

// envState names the folder of --state.
const envState = "NIGHTFERRY_STATE"

// variable is a row of the table of environment variables. `nightferry help environment` prints the table, and
// docs/cli.md holds it: a test compares.
type variable struct{ name, means string }

var variables = []variable{
	{envConfig, "the Core's configuration file, as --config"},
	{envCore, "a Core on another machine, as https://HOST:PORT, in place of the local one. It needs a token"},
	{envCoreCA, "the certificate authority of that Core, a PEM file, if the Core's own authority made its certificate"},
	{envToken, "a file with an API token of the Core; nightferry access create makes one"},
	{envTokenText, "the token itself"},
	{envReleaseKey, "the file of the key that signs releases"},
	{envRootKey, "the file of the root key, which signs the other keys"},
	{envRepositoryKey, "the key of an encrypted repository itself"},
	{vault.MasterEnv, "the master key of a Core's vault, in place of its file"},
	{envState, "the folder of --state"},
	{"AWS_*", "the store's credentials, profile, region and AWS_CA_BUNDLE, as for the AWS command line"},
	{"HTTPS_PROXY", "the proxy for https; also HTTP_PROXY, ALL_PROXY, and NO_PROXY for the exceptions"},
	{"GOGC", "the garbage collector's growth target in percent; the default is 40"},
}

func environmentHelp() string {
	const column = 26
	var b strings.Builder
	b.WriteString("nightferry reads these variables at run time:\n\n")
	for _, v := range variables {
		fmt.Fprintf(&b, "  %-*s%s\n", column-2, v.name, strings.ReplaceAll(wrap(v.means, lineWidth-column), "\n", "\n"+strings.Repeat(" ", column)))
	}
	return b.String()
}
