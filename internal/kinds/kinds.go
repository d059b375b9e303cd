// Package kinds is the registry of the kinds of incidents, each with its cause
// and its remedy. Mails, commands and docs/operations.md are generated from it.
package kinds

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kind is the type of an incident. The words never change.
type Kind string

// Kinds of incidents that the Core opens.
const (
	Forged    Kind = "forged"
	Revoked   Kind = "revoked"
	Protocol  Kind = "protocol"
	Malformed Kind = "malformed"
	Denied    Kind = "denied"
	TokenBad  Kind = "token"
	BadAsk    Kind = "ask"
	BadProof  Kind = "attestation"
	Clock     Kind = "clock"
	Cloned    Kind = "cloned"
	Silent    Kind = "silent"
	Absent    Kind = "absent"
	Full      Kind = "ledger-full"
	Store     Kind = "store"
	LogAccess Kind = "log-access"
	Rendering Kind = "log"
	Lost      Kind = "lost-events"
	Behind    Kind = "behind"
	OtherCore Kind = "other-core"
	MailDown  Kind = "mail"
	HookDown  Kind = "webhook"
	Publishes Kind = "publish"

	SourceDamage Kind = "source-damage"
	Unmeasured   Kind = "measure"
	BucketBad    Kind = "bucket"
	Ledger       Kind = "ledger"
	Inside       Kind = "core"

	Discrepancy Kind = "discrepancy"
	Stale       Kind = "stale"
	RunFails    Kind = "run"
	Stalled     Kind = "stalled"
	Overdue     Kind = "overdue"
	Target      Kind = "target" // prefix of kinds of a run that found no target: target-<the run's state>

	ConsoleLink Kind = "console-link"

	ClusterBad Kind = "cluster"
	NotCut     Kind = "cluster-revoked"
	SiteSays   Kind = "site" // prefix of kinds that sites report: site-<its kind>
)

// Object is the type of object that the second part of an incident's key names.
type Object int

// Types of objects.
const (
	Other   Object = iota // nothing that the configuration knows
	Channel               // a channel
	Domain                // a domain
	Task                  // a task of the Core
)

// Entry is one row of the registry.
type Entry struct {
	Kind   Kind
	Cause  string
	Remedy string
	Object Object
	// Expires is the time without another event after which an incident about
	// an attempt ends. 0: the code that opened it checks again, and ends it.
	Expires time.Duration
	// SymptomOf lists the kinds that may explain this one, under the conditions
	// of Symptoms. No alert is sent for a symptom.
	SymptomOf []Kind
	// Own lists objects of this kind that no other kind explains.
	Own []string
}

const (
	anHour = time.Hour
	aDay   = 24 * time.Hour
)

var entries = []Entry{
	{Kind: Forged, Expires: aDay, Cause: "a message on a site's own subject has a bad signature, or claims another identity", Remedy: "find out who else has the site's bus credential; revoke the site and enroll it again"},
	{Kind: Revoked, Expires: aDay, Cause: "a site without an identity, or one that the configuration does not name, sends messages", Remedy: "stop that agent, or enroll it again with a new token"},
	{Kind: Protocol, Expires: aDay, Cause: "an agent uses a newer or an older protocol than this Core; both versions are named", Remedy: "upgrade the older side, which the text names: the Core first, then its agents"},
	{Kind: Malformed, Expires: aDay, Cause: "a message, or something a site reported, does not parse", Remedy: "upgrade the agent; if it is new, report the fault"},
	{Kind: Denied, Expires: anHour, Cause: "the bus refused a connection or a subject; closes after an hour without another try", Remedy: "find the client: a revoked site, a site that another server has replaced, an expired credential, a vault that was restored from a backup and lacks a newer signing key, or an attacker; the text names the site if it is proven, and otherwise what the credentials claim"},
	{Kind: TokenBad, Expires: aDay, Cause: "an enrollment token was used twice, too late, or was never given out; the text names the site that it was for", Remedy: "give a new token; if it was used twice, find out by whom"},
	{Kind: BadAsk, Expires: aDay, Cause: "a site asked for objects that none of its releases needs", Remedy: "nothing was lent; look at that server"},
	{Kind: BadProof, Object: Channel, Cause: "a site's statement is not about the release that the Core published, or differs from the Core's measurement of its own source; the text has both numbers", Remedy: "nothing was counted as verified; look at that server"},
	{Kind: Clock, Cause: "a site's clock, or the Core's, is more than 2 minutes from the store's; from 15 on, nothing starts at the site. While the Core's differs, it removes nothing by age and signs no head again", Remedy: "set the clock of the machine that the text names, and see to its time service"},
	{Kind: Cloned, Cause: "two machines use the identity of one site, because a server was copied after it had enrolled; the text names both if they were connected at once. If only one is connected at a time, its state does not continue the state that was heard last: a copy and a restored backup look the same. Until this is settled, the site counts as *contested*: nothing there is current or verified, and no stop there is proven", Remedy: "stop one of the two and enroll the site again: `nightferry site token NAME`, then `nightferry-agent enroll --replace`; if the other machine is gone for good, or a backup was restored: `nightferry site confirm NAME`"},
	{Kind: Silent, Cause: "no message from the site for 5 minutes", Remedy: "see whether the server is up, the agent runs, and its network reaches the Core", SymptomOf: []Kind{ClusterBad}},
	{Kind: Absent, Cause: "no message from the site for 30 days, so that it keeps no release in the bucket any more", Remedy: "bring the site back: it then pulls the newest release; if it is gone for good, revoke it and remove it from the configuration"},
	{Kind: Full, Cause: "the volume of the ledger is full; sites keep what they report until it is not", Remedy: "free some space, nothing else"},
	{Kind: Store, Object: Channel, Cause: "the store does not answer, or not well; sites keep their releases", Remedy: "repair the cause named in the text: network, credentials or the bucket"},
	{Kind: LogAccess, Object: Domain, Cause: "the access rights of a domain's log folder were changed", Remedy: "restore the rights, or remove the folder while the Core is stopped"},
	{Kind: Rendering, Cause: "a run's log file cannot be written; it is kept in the ledger and tried again", Remedy: "see to the space and access of the log folder, or to the store, if the text names it", SymptomOf: []Kind{Store, Ledger, Full}},
	{Kind: Lost, Expires: aDay, Cause: "a site's reports of some runs are in no ledger: the ledger is a restored backup", Remedy: "nothing can be done: those runs have no record"},
	{Kind: MailDown, Cause: "mails cannot be delivered, or a file that they need is missing; they are kept, and sent later as one mail", Remedy: "correct the cause in the server's answer, or the secret `smtp`; then `nightferry alert test`"},
	{Kind: HookDown, Cause: "the webhook does not take notices, or its secret is missing; they are kept", Remedy: "correct the cause in its answer, or the secret `webhook`; then `nightferry alert test`"},
	{Kind: Behind, Object: Channel, Cause: "a channel's head could not be read since the Core started, or a site holds a newer release than this Core knows, as after a restore of the ledger; sites keep their desired release of that channel, the other channels continue", Remedy: "resolve the incident `store`, so that the Core can read the head; put a damaged head back from a copy, or delete that object and `nightferry publish CHANNEL`", SymptomOf: []Kind{Store}},
	{Kind: Publishes, Object: Channel, Cause: "a channel could not be published; closes with its next publish", Remedy: "correct the cause named in the text, and `nightferry publish` again; if a guard refused an intended change, with the guard's flag", SymptomOf: []Kind{Store, Ledger, Full, OtherCore}},
	{Kind: Discrepancy, Object: Channel, Cause: "files at a site differ from the applied release: they are missing, of another size or with other bytes; the first twenty paths are named, `nightferry run show` has them all", Remedy: "if the text says that all was repaired, find out who changes files there; else `nightferry verify --site NAME --repair`"},
	{Kind: OtherCore, Cause: "another Core, such as a restored backup or a copy of this machine, was started later and uses the same bucket; this Core publishes nothing, signs no heads, purges nothing, states no releases to sites and keeps none of their reports. Halt orders of both Cores work", Remedy: "stop one of the two Cores; to continue with this one, stop the other one, then restart this one: its start takes the bucket over"},
	{Kind: Stale, Object: Channel, Cause: "a site lacks a release although its window has closed since (or for a day, with no window or one that is open for longer)", Remedy: "see how its last run ended: `nightferry runs --site NAME`; `nightferry sync --site NAME --now` does not wait for the next window"},
	{Kind: RunFails, Object: Channel, Cause: "two runs of a channel at a site failed one after the other; the text has the cause of the last one; closes when a run ends well", Remedy: "correct the cause named in the text, then `nightferry sync --site NAME --now`; `nightferry run show RUN` names each file"},
	{Kind: Stalled, Object: Channel, Expires: anHour, Cause: "a run is under way at a site that is connected, and nothing has moved in it for 15 minutes; closes when something moves, or when the run ends", Remedy: "on that server, look at the disk or the share of the target and at the line to the store; if the share hangs, mount it anew or restart the server: the run then continues"},
	{Kind: Target + "-emptied", Object: Channel, Cause: "a target that held a release holds nothing of it any more, as when its volume is not mounted; nothing was changed there; closes when a run finds the record", Remedy: "on that server, mount the volume of the folder that the text names, then `nightferry verify --site NAME --channel CHANNEL`; if the folder is to be filled anew: `nightferry sync --site NAME --channel CHANNEL --adopt --now`"},
	{Kind: Target + "-refused", Object: Channel, Cause: "the configuration names a target folder that the site does not allow; nothing was changed there; closes when a run starts in an allowed one", Remedy: "correct `targets` in the configuration and `nightferry core reload`; or, on that server, add the folder to `allow` in `site.json` of the agent's state folder and restart the agent"},
	{Kind: Target + "-unreadable", Object: Channel, Cause: "a target, or nightferry's record in it, cannot be read: its disk fails, its share is stale or does not answer, or the agent's account has no access; what it holds is unproven; closes when a run has compared every file", Remedy: "on that server, look at the disk, the mount and the access of the folder that the text names, then `nightferry verify --site NAME --channel CHANNEL`"},
	{Kind: SourceDamage, Object: Channel, Cause: "files of a channel's source have other bytes than were published, under the same size and time, or cannot be read: a bad disk, malware, or a fault of the publisher; closes when the source is measured well again", Remedy: "look at that disk; put the files back from a good copy and `nightferry publish` again; if the new bytes are intended, `nightferry publish --rehash`"},
	{Kind: Unmeasured, Object: Channel, Cause: "the Core could not read a channel's source to measure it; it tries again every quarter of an hour", Remedy: "see whether the source is mounted, and whether the Core's account may read it", SymptomOf: []Kind{Store, Ledger, Full}},
	{Kind: BucketBad, Cause: "the daily check of the bucket found an object lost or damaged, or could not be made; closes when a check finds nothing", Remedy: "run `nightferry fsck --forget-missing STORE`, then `nightferry publish`, which stores again the chunks that the source still holds", SymptomOf: []Kind{Store}, Own: []string{""}},
	{Kind: Ledger, Cause: "the ledger cannot be read or written, and its disk is not full; sites keep what they report until it works", Remedy: "look at the disk of the data folder; if the file is damaged, restore a backup"},
	{Kind: Inside, Expires: anHour, Cause: "something else inside the Core fails, and is tried again; the text names it; closes when it works, or after an hour without a failure", Remedy: "repair the cause named in the text: mostly the disk of the data folder", SymptomOf: []Kind{Store, Ledger, Full}, Own: []string{"message", "bus", "send", "renew", "names", "certificate"}},
	{Kind: Overdue, Object: Task, Cause: "a task of the Core hangs, or has not succeeded for longer than its period and its bound; `nightferry core tasks` shows all. The other tasks continue", Remedy: "check the input of the task: a source on a dead mount, the store, the mail server; restart the Core once it answers"},
	{Kind: ConsoleLink, Expires: aDay, Cause: "an account of the Core's machine signed in to the console by a link (`nightferry console link`); the text names the account and the address of the browser", Remedy: "if it was not you, or a colleague whom you can ask: `nightferry console sessions`, then `nightferry console end ID`; find out who used that account"},
	{Kind: ClusterBad, Cause: "your own NATS cluster is away, or does not take the users that the Core makes", Remedy: "let the cluster's owner run the commands that the text names: docs/operations.md, Your own NATS cluster"},
	{Kind: NotCut, Expires: aDay, Cause: "a client was revoked, but only the owner of your NATS cluster's account can disconnect it", Remedy: "let the cluster's owner run the command that the text names"},
}

// siteEntries are the kinds that sites report. Their incidents end when the
// site reports the end, has a new database, is revoked or is no longer
// configured.
var siteEntries = []Entry{
	{Kind: "site-spool", Cause: "the agent's own database was damaged; it was set aside under a dated name", Remedy: "check that disk; nothing is deleted at the target until it was read anew"},
	{Kind: "site-clock", Cause: "the site sees its clock apart from the Core's or the store's", Remedy: "set its clock", SymptomOf: []Kind{Clock}},
	{Kind: "site-store", Object: Channel, Cause: "content cannot be fetched", Remedy: "see to that site's way to the store: DNS, proxy, firewall", SymptomOf: []Kind{Store}},
	{Kind: "site-line", Object: Channel, Cause: "content arrived damaged at the site and was fetched again; closes when a run ends well without that", Remedy: "look for a network device or a proxy between that site and the store that changes bytes; use https, which detects damage sooner"},
	{Kind: "site-disk", Object: Channel, Cause: "a disk of the site is full", Remedy: "free space; the run continues by itself"},
	{Kind: "site-repository", Object: Channel, Cause: "data from the store is not signed by the repository's keys", Remedy: "run `nightferry fsck STORE`; compare the key with `nightferry trust show STORE`. If it is no key of yours, find out who else can write to the bucket"},
	{Kind: "site-control", Cause: "a message in the Core's name was refused", Remedy: "find out whether another Core has the same sites, or who else can write to the message bus"},
}

// Entries returns the rows of the Core's own kinds and of the kinds that sites
// report.
func Entries() (core, sites []Entry) { return entries, siteEntries }

var byKind = func() map[Kind]*Entry {
	all := map[Kind]*Entry{}
	for _, list := range [][]Entry{entries, siteEntries} {
		for i := range list {
			all[list[i].Kind] = &list[i]
		}
	}
	return all
}()

// Of returns the row of a kind. For a kind that only a newer agent knows it
// returns a row that refers to the documentation.
func Of(k Kind) *Entry {
	if e := byKind[k]; e != nil {
		return e
	}
	return &Entry{Kind: k, Remedy: "see docs/operations.md, Incidents"}
}

// causes maps parts of a run's error text to remedies, the more special ones first.
var causes = []struct{ part, remedy string }{
	{"marked immutable or append-only", "on that server, `lsattr -d PATH` shows which of the path that the text names and its folder has the attribute, and `chattr -i -a PATH`, as root, removes it"},
	{"has the sticky bit", "on that server, `chown` the file to the agent's account, or take the sticky bit from its folder: `chmod -t FOLDER`"},
	{"operation not permitted", "on that server, look for an access list, a security module (SELinux, AppArmor) or a mount option that forbids the change of the path that the text names"},
	{"read-only file system", "on that server, see in `dmesg` why the target's volume is read-only: a volume with errors needs fsck first. Then `mount -o remount,rw MOUNTPOINT`. If it is writable already, restart the agent's service, which may have started before the folder existed: `systemctl restart nightferry-agent`"},
	{"write protected", "on that server, see in the system's event log why the target's volume is write-protected, and make it writable: `attributes disk clear readonly` in diskpart, or the switch of the medium"},
	{"permission denied", "let the agent's account read and write the target folder and everything below it: on that server, as root, `setfacl -R -m u:ACCOUNT:rwX TARGET`"},
	{"Access is denied", "let the agent's account read, write and delete in the target folder and everything below it: on that server, as administrator, `icacls TARGET /grant ACCOUNT:(OI)(CI)M /T`; if it has these rights, a program runs the file: end it"},
	{"ownership lost", "look through the files that the log of the run names as extra; then `nightferry sync --site NAME --channel CHANNEL --adopt --now` declares them the site's own, or `prune: true` for the channel deletes them"},
	{"no space left", "free space at the site; the run continues by itself"},
	{"not enough space", "free space at the site; the run continues by itself"},
	{"input/output error", "check that disk: it reports read or write errors"},
	{"stale", "on that server, mount the share of the target again: `umount -l MOUNTPOINT`, then `mount MOUNTPOINT`"},
	{"does not answer", "see on that server whether the target's disk or share answers: `timeout 10 ls TARGET`; mount a share again"},
	{"holds channel", "give each channel a target folder of its own"},
	{"used by another process", "see on that server which program holds the files that the text names, and end it; the next run brings them"},
	{"in use by another process", "end the other nightferry process that works on this target, or wait until it has ended"},
	{"locked by", "see on that server which program holds the files that the text names, and end it; the next run brings them"},
	{"text file busy", "see on that server which program holds the files that the text names, and end it; the next run brings them"},
}

// quoted matches the names in an error's text, which are no causes.
var quoted = regexp.MustCompile(`"(\\.|[^"\\])*"`)

// Remedy returns the remedy for an incident, by its kind and its text, as plain
// text. If the text names several causes, it returns the remedy of each.
func Remedy(kind Kind, text string) string {
	found := ""
	if kind == RunFails || kind == Target+"-unreadable" {
		if _, rest, ok := strings.Cut(text, ": "); ok { // before it, the site and the channel are named
			text = rest
		}
		found = RunRemedy(text)
	}
	if found == "" {
		found = strings.ReplaceAll(Of(kind).Remedy, "`", "")
	}
	return found
}

// ForSite fills a site's and a channel's name into the commands of a remedy. An empty name leaves its placeholder.
func ForSite(remedy, site, channel string) string {
	if site != "" {
		remedy = strings.NewReplacer("--site NAME", "--site "+site, "site token NAME", "site token "+site, "site confirm NAME", "site confirm "+site).Replace(remedy)
	}
	if channel != "" {
		remedy = strings.ReplaceAll(remedy, "--channel CHANNEL", "--channel "+channel)
	}
	return remedy
}

// RunRemedy returns the remedies for the causes that the error of a run names, as plain text, or "" if it names none.
func RunRemedy(text string) string {
	var found []string
	text = quoted.ReplaceAllString(text, "")
	for _, c := range causes {
		if !strings.Contains(text, c.part) {
			continue
		}
		text = strings.NewReplacer(c.part+": operation not permitted", "", c.part, "").Replace(text)
		if !slices.Contains(found, c.remedy) {
			found = append(found, c.remedy)
		}
	}
	return strings.ReplaceAll(strings.Join(found, ". Also: "), "`", "")
}

// KeyOf returns the key of the incident of a kind about an object. Equal
// incidents have equal keys.
func KeyOf(kind Kind, what string) string {
	if what == "" {
		return string(kind)
	}
	return string(kind) + "/" + what
}

// CutKey is the reverse of KeyOf.
func CutKey(key string) (kind Kind, what string) {
	k, what, _ := strings.Cut(key, "/")
	return Kind(k), what
}
