// Package gates tests who can do what in a fleet. It tries each subject of the bus, each object whose URL a site can
// request, each call of the Core's local socket, and the job logs. It tries them as a stranger, the holder of an
// enrollment token, a site, another site of the same domain, a site of another domain, and as users whose identity was
// revoked or has expired.
//
// The tests run a real Core against a real S3 server; as root, the Core has its own account. They compare the result
// with the tables in docs/threats.md, which go test ./internal/gates -update writes.
//
// # What bad input gets
//
// The answer to bad input names the fault, and nothing changes. These tests prove it:
//
//	unknown keys                        config.TestRefused, in an editor too
//	a site in no domain                 config.TestRefused, fleet.TestValidate
//	overlapping targets                 config.TestRefused, fleet.TestOverlap
//	a target inside a source            config.TestRefused, fleet.TestValidate
//	duplicate names                     config.TestRefused, fleet.TestValidate
//	a zone that does not exist          config.TestRefused
//	names that Windows has for devices  fleet.TestNames
//	any bytes as a configuration        config.FuzzParse
//	a bad file, to a running Core       core.TestOrders, nightferry.TestCore
//	a token for another Core            core.TestTokens, agent.TestEnrolRefusals
//	a message that does not parse       core.TestMessagesThatDoNotParse, agent.TestNewerCore, wire.FuzzBody
//	another protocol version            core.TestForgeries, agent.TestNewerCore, wire.TestOpenRefuses
//	a damaged agent database            agent.TestDamagedMemory, spool.TestCorruptFileIsSetAside
//	a newer agent's database            spool.TestNewerDatabase, ledger.TestMigrations of the ledger
//	a damaged catalogue of a target     agent.TestDamagedMemory, apply.TestLostCatalogueKeepsOwnership
//	a ledger on a full disk             core.TestFullLedger, ledger.TestFullVolume
//	a restored ledger and vault         core.TestYesterday, core.TestRestoredLedger, core.TestBehind
package gates
