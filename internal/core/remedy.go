package core

// remedies tells for each kind of incident what to do, as docs/operations.md
// does, which a test compares.
func remedies() map[string]string {
	return map[string]string{
		"forged":          "find out who else has the site's bus credential; revoke the site and enrol it again",
		"revoked":         "stop that agent, or enrol it again with a new token",
		"protocol":        "upgrade the Core first, then its agents",
		"malformed":       "upgrade the agent; if it is new, report the fault",
		"denied":          "find out who that is: a revoked site, one whose place another server has taken, an expired credential, or somebody who tries; the text names the site, where a credential was shown",
		"token":           "give a new token; if it was used twice, find out by whom",
		"ask":             "nothing was lent; look at that server",
		"attestation":     "nothing was counted as verified; look at that server",
		"clock":           "set its clock, and see to its time service",
		"silent":          "see whether the server is up, the agent runs, and its network reaches the Core",
		"ledger-full":     "free some space, nothing else",
		"store":           "mend what the text names: network, credentials, the bucket",
		"log-access":      "put it right, or remove the folder while the Core is stopped",
		"log":             "see to the space and access of the log folder, or to the store, if the text names it",
		"lost-events":     "nothing can be done: those runs have no record",
		"mail":            "mend what the server's answer in the text names, or the secret smtp; then nightferry alert test",
		"webhook":         "mend what its answer in the text names, or the secret webhook; then nightferry alert test",
		"behind":          "mend what the incident store names: the ledger is a restored backup, and the store must be read first",
		"publish":         "mend what the text names, and nightferry publish again; where a guard refused what is meant, with its flag",
		"discrepancy":     "nothing, where it says that all was repaired: find out who changes files there; else nightferry verify --site NAME --repair",
		"stale":           "see how its last run ended: nightferry runs --site NAME; nightferry sync --site NAME --now does not wait for the next window",
		"source-damage":   "look at that disk; put the files back from a good copy and nightferry publish again; where the bytes there are meant, nightferry publish --rehash",
		"measure":         "see whether the source is mounted, and whether the Core's account may read it",
		"bucket":          "run nightferry fsck --forget-missing STORE, then nightferry publish, which stores again what the source still holds",
		"ledger":          "look at the disk of the data folder; where the file is damaged, restore a backup",
		"core":            "mend what the text names: mostly the disk of the data folder",
		"cluster":         "let the cluster's owner run the commands that the text names: docs/operations.md, Your own NATS cluster",
		"cluster-revoked": "let the cluster's owner run the command that the text names",
		"site-spool":      "check that disk; nothing is deleted at the target until it was read anew",
		"site-clock":      "set its clock",
		"site-target":     "correct the configuration, or the agent's list of roots",
		"site-store":      "see to that site's way to the store: DNS, proxy, firewall",
		"site-disk":       "free space; the run goes on by itself",
		"site-repository": "run nightferry fsck STORE, and find out who else can write to the bucket",
		"site-control":    "find out whether another Core has the same sites, or who else can write to the message bus",
	}
}

// Remedy is what to do about an incident of a kind, which may be one that only
// a newer agent knows.
func Remedy(kind string) string {
	if r, ok := remedies()[kind]; ok {
		return r
	}
	return "see docs/operations.md, Incidents"
}
