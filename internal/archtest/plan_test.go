package archtest

// floor is a storey of the house. Production code imports only rooms of a lower floor, so that a room can be read,
// tested and replaced by a reader who knows only the lower floors.
type floor int

const (
	bedrock floor = iota // the one type that even the ground floor is built of
	ground
	formats // need no other format
	packed  // formats of chunks
	indexed // formats of packs
	tools
	repository
	verbs
	services
	processes
	contract // what the processes offer to their clients
	pages    // the pages of the console, over the contract
	programs
	testRooms // may import any room up to the tools; only tests, the demo and the benchmark import it
)

func (f floor) String() string {
	return [...]string{"bedrock", "ground", "formats", "packed formats", "indexed formats", "tools", "repository", "verbs", "services", "processes", "contract", "pages", "programs", "tests"}[f]
}

// room is one package of the house.
type room struct {
	dir   string // slash-separated, relative to the module's root
	floor floor
	owns  string
}

// rooms lists all rooms. An unlisted room fails the test, and so does a listed room that is gone: a table that does not
// match the tree protects nothing.
var rooms = []room{
	{"internal/digest", bedrock, "the SHA-256 digest type and its text form"},

	{"internal/clock", ground, "a type for each clock, and how far this machine's is from the store's"},
	{"internal/durable", ground, "every rename and sync; writes below an os.Root that survive a power cut"},
	{"internal/text", ground, "what people and their shells wrote, whatever its encoding"},
	{"internal/frame", ground, "magic, version and canonical CBOR of every artefact"},
	{"internal/policy", ground, "how a channel is treated at a site: one struct from the configuration to apply"},
	{"internal/seal", ground, "keys and AES-GCM of an encrypted repository"},

	{"internal/chunk", formats, "where a file is cut"},
	{"internal/pack", packed, "blocks, their compression and the footer that indexes them"},
	{"internal/index", indexed, "segments and the index root"},
	{"internal/manifest", packed, "entries, pages, path rules and Diff"},
	{"internal/trust", formats, "keys, signatures, releases and heads"},
	{"internal/halt", formats, "the kill switch's orders and their epoch"},
	{"internal/window", formats, "when a channel may move: wall-clock windows, the dark, rates and cadences"},
	{"internal/fleet", formats, "the model: channels, domains, regions, sites and the rules between them"},

	{"internal/rights", packed, "who may do what: roles, and the sites that they are over"},
	{"internal/kinds", formats, "the kinds of incidents: cause, remedy, and how each one ends"},
	{"internal/runs", formats, "the nouns of a run: states, counts, totals, progress"},

	{"internal/wire", packed, "what the Core and its agents say to each other: messages, subjects, signatures"},

	{"internal/bucket", tools, "stores: a directory or S3"},
	{"internal/bus", tools, "the control plane: NATS server and client, identities, proxies"},
	{"internal/scan", tools, "the walk over a folder, its patterns and the catalogue of what was seen"},
	{"internal/vault", tools, "secrets by name and version, and an audit record for every read"},
	{"internal/ledger", tools, "the Core's SQLite: what was released, desired, reported, halted and done"},
	{"internal/mail", tools, "delivery by SMTP and to a webhook"},
	{"internal/spool", tools, "the agent's SQLite: events not yet acknowledged, outcomes, what the Core said"},
	{"internal/door", tools, "a TLS listener for HTTP: certificate, host names and bounds"},
	{"internal/service", tools, "being a systemd unit or a Windows service"},
	{"internal/logfile", tools, "log files of the two daemons: rotation, and a bound for each message"},
	{"internal/record", tools, "job log files, their access and their purge"},

	{"internal/commit", repository, "the journal of a folder's changes, and its replay after a crash"},
	{"internal/repo", repository, "opens a repository: trust chain, head, release, index look-ups, block fetches"},

	{"internal/push", verbs, "push: a folder becomes a release"},
	{"internal/apply", verbs, "pull: a release becomes a folder"},
	{"internal/measure", verbs, "reads a source for itself and holds it against its release"},
	{"internal/verify", verbs, "compares a folder with a release"},
	{"internal/collect", verbs, "gc and fsck"},
	{"internal/alert", verbs, "whom to tell what, and what was told; pure"},
	{"internal/schedule", verbs, "what starts when, and the forecast; pure"},
	{"internal/nights", verbs, "a fleet's windows, rates and cadences, parsed once"},
	{"internal/releases", verbs, "the trees of published releases, with the pages that were read kept on disk"},

	{"internal/tasks", services, "periodic work: name, period, bound, last success, and what is overdue"},
	{"internal/publishing", services, "which channels are being published and measured, and what stops that"},
	{"internal/apitokens", services, "API tokens: issued once, checked by their hash, revoked"},
	{"internal/idempotency", services, "requests that carried an idempotency key, and the answers that a repetition gets"},
	{"internal/jobs", services, "long work that clients have asked for: it outlives the connection, can be followed and stopped"},
	{"internal/signin", services, "who has signed in to the console: links, the identity provider, sessions"},
	{"internal/incident", services, "which incidents are open, and how each one ends"},
	{"internal/incarnation", services, "the number of this Core's life, and which of two Cores acts"},
	{"internal/heads", services, "each channel's newest release, and the import of heads from the store into the ledger"},
	{"internal/enrolment", services, "the tokens, enrollments and revocations of sites, and the machines that use each identity"},
	{"internal/halting", services, "the active halt orders, their newest object and who obeys them"},
	{"internal/reports", services, "a site's events become committed runs and effects; log files of ended runs"},
	{"internal/query", services, "answers about the fleet: status, sites, runs, where, why, plan"},
	{"internal/lending", services, "presigned URLs: which objects a site may read, and for how long"},
	{"internal/desired", services, "what every site should hold: a pure plan, one transaction, and each site's present state"},

	{"internal/config", processes, "the Core's YAML file: strict, with every error at its place"},
	{"internal/core", processes, "the Core's daemon: states what sites should hold, commits what they report"},
	{"internal/api", contract, "the Core's contract: requests, answers, routes over a backend, a typed client, and the local socket"},

	{"internal/console", pages, "the console: pages for browsers, their assets and the design system"},
	{"internal/consoletest", pages, "a fleet of made-up facts, for the tests of the console"},

	{"internal/agent", processes, "the site's daemon: converges and reports"},

	{"cmd/nightferry", programs, "the command line"},
	{"cmd/nightferry-agent", programs, "the command line of a site"},
	{"cmd/demo", programs, "the whole tour on one machine"},
	{"cmd/s3gateway", programs, "the S3 server of the tests and the demo, a module of its own"},
	{"bench", programs, "the comparison with peers"},

	{"internal/browsertest", testRooms, "the console in a real browser, a module of its own"},
	{"internal/testbed", testRooms, "opens stores for tests, counts calls and injects faults"},
	{"internal/s3test", testRooms, "real S3 servers, and relays that count and damage their traffic"},
	{"internal/bustest", testRooms, "a NATS server of the customer's own"},
	{"internal/mailtest", testRooms, "a real mail server"},
	{"internal/proxytest", testRooms, "real proxies"},
	{"internal/disktest", testRooms, "small file systems, attributes of files"},
	{"internal/doctest", testRooms, "the commands and examples of the documentation"},
	{"internal/pains", testRooms, "the complaints about today's tools, each a test"},
	{"internal/gates", testRooms, "every gate of a fleet, tried as everybody"},
	{"internal/wintest", testRooms, "fleets of Windows and Linux programs, under Wine"},
	{"internal/chaos", testRooms, "a fleet of real processes while everything around it breaks"},
	{"internal/crash", testRooms, "proof that killing and power loss are safe"},
	{"internal/archtest", testRooms, "this table"},
}

// owner allows only the rooms in dirs to import path. A path that ends in a slash includes everything below it.
type owner struct {
	path  string
	dirs  []string
	tests []string // rooms whose test files may import it as well
	why   string
}

var owners = []owner{
	{"github.com/aws/", []string{"internal/bucket"}, nil,
		"one room speaks S3, so that retries, checksums and error texts are decided once"},
	{"github.com/versity/", []string{"cmd/s3gateway"}, nil,
		"the S3 server is for tests and the demo; its module is not the product's"},
	{"github.com/PlakarKorp/", []string{"internal/chunk"}, nil,
		"chunk borders are part of the format: one room decides them"},
	{"github.com/klauspost/compress/", []string{"internal/pack", "internal/push", "internal/repo", "internal/wire", "internal/console"}, nil,
		"pack and wire set the bounds on decompression; push and repo only carry its encoders and decoders from call to call; the console compresses its pages"},
	{"github.com/fxamacker/cbor/", []string{"internal/frame"}, nil,
		"the canonical mode and its bounds are set in one place; a second decoder would accept other bytes"},
	{"modernc.org/", []string{"internal/ledger", "internal/spool"}, nil,
		"the Core's database and the agent's: one owner each for its locks and its settings"},
	{"crypto/cipher", []string{"internal/seal"}, nil,
		"keys and nonces are derived in one place"},
	{"crypto/aes", []string{"internal/seal"}, nil,
		"keys and nonces are derived in one place"},
	{"github.com/nats-io/", []string{"internal/bus", "internal/bustest"}, nil,
		"one room speaks NATS, so that identities and permissions are decided once"},
	{"github.com/gorilla/websocket", []string{"internal/bus"}, nil,
		"WebSocket is one door of the bus"},
	{"github.com/tink-crypto/", []string{"internal/vault"}, nil,
		"keys at rest are one room's business; the formats derive theirs in seal"},
	{"github.com/prometheus/", []string{"cmd/nightferry", "bench"}, nil,
		"rooms count; the program says it to Prometheus"},
	{"github.com/Microsoft/go-winio", []string{"internal/api"}, nil,
		"named pipes are the local socket's door on Windows"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, nil,
		"one file is YAML, and its errors are decided once"},
	{"github.com/goccy/go-yaml/", []string{"internal/config"}, nil,
		"one file is YAML, and its errors are decided once"},
	{"github.com/santhosh-tekuri/", []string{}, []string{"internal/config"},
		"the schema is for editors; the program has its own, better errors"},
	{"nightferry/internal/config", []string{"cmd/nightferry", "cmd/demo", "bench"}, nil,
		"rooms take options; only a program knows that they came from a file"},
	{"github.com/coreos/go-oidc/", []string{"internal/signin"}, nil,
		"which ID tokens count is decided once"},
	{"golang.org/x/oauth2", []string{"internal/signin"}, nil,
		"which ID tokens count is decided once"},
	{"github.com/wneessen/go-mail", []string{"internal/mail"}, nil,
		"headers, TLS and logins of mail are decided once"},
	{"github.com/robfig/cron/", []string{"internal/window"}, nil,
		"only its parser is used: what a zone's skipped and doubled hours mean is decided once, by us"},
	{"github.com/spf13/cobra", []string{"cmd/nightferry", "cmd/nightferry-agent"}, nil,
		"command lines end at the program"},
	{"log/slog", []string{"cmd/nightferry", "cmd/nightferry-agent", "cmd/demo", "bench"}, []string{"internal/vault"},
		"a library returns its errors; the process's edge logs them once"},
	{"log", []string{}, nil, "slog, and only at the process's edge"},
	{"nightferry/internal/testbed", []string{"internal/s3test", "internal/mailtest", "internal/proxytest", "cmd/demo", "bench"}, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/bustest", nil, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/mailtest", nil, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/proxytest", nil, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/disktest", nil, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/consoletest", nil, []string{"internal/console", "internal/browsertest"},
		"it knows the contract, so that it is beside the console; no program may show made-up facts"},
	{"nightferry/internal/doctest", nil, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
	{"nightferry/internal/s3test", []string{"cmd/demo", "bench"}, []string{"*"},
		"test servers and fault injectors stay out of the programs that ship"},
}
