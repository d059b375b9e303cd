// Package gates tries every gate of a fleet as everybody: each subject of the
// bus, each object that a site can ask URLs for, each call of the Core's local
// socket, and the job logs, as somebody unknown, as the holder of a token, as a
// site, as another site of the same domain, as one of another domain, and as
// those whose identity was revoked or has expired.
//
// A real Core runs for it, in a process and (where the tests run as root) under
// an account of its own, before a real S3 server. What is found is compared
// with what docs/threats.md promises; go test ./internal/gates -update writes
// it there.
//
// # What bad input gets
//
// Who sends what does not belong is named in the answer, and nothing is changed
// by it. Where that is proven:
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
