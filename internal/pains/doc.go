// Package pains holds only tests: one file for each common complaint about today's tools in this field, from a folder
// through a real store to another folder. Each test is named after the complaint's number in the list below, and fails
// when the protection that it tests is switched off.
//
//	 1  a same-size edit is missed                  pain01_test.go
//	 2  a listing error wipes the destination       pain02_test.go
//	 3  an accidental mass delete goes through      pain03_test.go
//	 4  names that differ by case only              pain04_test.go
//	 5  torn files                                  pain05_test.go
//	 6  a mixed-version tree                        pain06_test.go
//	 7  downloads are not verified                  pain07_test.go
//	 8  silent downgrade to size-only checks        pain08_test.go
//	 9  memory and time on many files               pain09_linux_test.go
//	10  the request bill                            pain10_test.go
//	11  the window overruns, or starts from zero    agent pain11_test.go, night_test.go; apply TestPain11_ResumesWhereItWasStopped
//	12  clocks and their changes                    agent pain12_test.go (the daemon); window pain12_test.go (the rules);
//	                                                rates on the line: bench, part rate
//	13  Windows realities                           pain13_test.go, pain13_linux_test.go
//	14  stop does not stop                          core halt_test.go, halt_bucket_test.go; agent halt_test.go; apply and publish
//	                                                halt_test.go; cmd/nightferry halt_unix_test.go; 70 sites: bench, part halt
//	15  replayed releases, missing objects          pain15_test.go; a file changed at a site: core discrepancy_test.go
//	                                                the Core: core cut_unix_test.go, health_test.go, source_test.go
//
// How bad input is handled, and where that is tested: end to end here (damage_test.go, badinput_test.go,
// unreadable_linux_test.go) and, if noted, in the room that handles it first.
//
//	bit flips, truncation, in any object   TestBadInput_FlippedAndTruncated; every byte of a pack, a footer, a page:
//	                                       pack, index, manifest, trust, frame; fsck: collect
//	a missing pack, any missing object     TestPain15_MissingObject, TestPain15_LostPackIsHealed, TestPain15_LostHead
//	a store of a newer format              TestBadInput_NewerFormat; frame
//	a path that leaves the target          TestBadInput_PathsThatLeave (.., absolute, C:, a:stream, aliases, signed by
//	                                       the right key); manifest, durable
//	a symlink or junction in the target    TestBadInput_PlantedLinks; durable (junctions: its Windows tests),
//	                                       apply TestPlantedLinksLeadNowhere
//	a manifest with a billion entries      TestBadInput_BillionEntries; manifest TestBillionEntries
//	a zstd bomb                            TestBadInput_ZstdBomb; pack TestBombsAreRefusedInLittleMemory
//	a full disk in mid-stage               TestPain13_FullDisk; apply TestDiskFullInMidStage, TestPain13_RealDiskFullInMidStage
//	a target on another volume             apply TestVolumeMountedInsideIsRefused; TestPain13_FullDisk's target is one
//	a source file that cannot be read      TestBadInput_UnreadableSource
//	a file that becomes a folder and back  TestPain05, TestPain06 (one way, killed anywhere); apply TestFileBecomesFolderAndBack
//	two files that swap names              TestPain05, TestPain06 (killed anywhere); apply TestMovesSwapsAndCase
//
// Each protection was switched off once, by an edit of the code named here, and the test beside it failed for that
// reason. If a second protection also covers the case, both edits are named with a +. Tests of other rooms are named
// with the room; (wine) ran as a Windows program under Wine.
//
//	 1  publish looksSame: an older time, or only a ctime, is ignored          TestPain01_SameSizeEdit
//	    publish racy: a recent file's stat is trusted                          TestPain01_YoungFile
//	    apply current; apply untouched: size and mtime suffice                 TestPain01_SameSizeEdit/at_the_site
//	 2  bucket codes: 403 is read as "not found"                               TestPain02_StoreThatFails/403, ExitCodes
//	    bucket stallTransport: no timer                                        TestPain02_StoreThatFails/no_answer (hangs)
//	    apply bring: a list's load error is ignored                            TestPain02_StoreThatFails
//	    the same + repo Entries: a lost page ends the list (deletes all)       TestPain02_StoreThatFails
//	    publish put, checkpoint; repo putRelease: a failed write is ignored    TestPain02_StoreThatFailsThePush
//	    publish guard "empty"                                                  TestPain02_SourceThatIsGone
//	    publish Run makes a missing source + guard "empty"                     TestPain02_SourceThatIsGone/missing
//	    publish guard "deletes"                                                TestPain02_SourceThatIsGone/a_share_below…
//	    publish look + tasks + guard "deletes": unlistable files count as gone TestBadInput_UnreadableSource
//	    scan list: a partial listing is accepted                               TestBadInput_UnreadableSource, scan TestPain02
//	    cmd exits: no code for refused, for denied                             TestPain02_ExitCodes
//	 3  publish guard: "deletes" off, MaxDeleteFiles off, >= for >             TestPain03_MassDelete
//	    publish previous: unknown without the stat cache                       TestPain03_MassDelete, "cache lost: true"
//	 4  publish claim: stored again; apply match; match + seed                 TestPain04_CaseOnlyRename
//	    apply aliases (wine); durable rename (wine)                            apply TestMovesSwapsAndCase; durable TestCaseOnlyRename
//	    manifest reserved, last dot, last space, windowsForbids, Checker.Add,  TestPain04_NamesThatWindowsCannotHold
//	    foldRunes; publish look: not checked, or only the first is kept        TestPain04_NamesThatWindowsCannotHold
//	 5  apply doPlace: written in place, not renamed                           TestPain05_TornFiles
//	    apply compare: staged chunks are trusted + checker: not read back      TestPain05_TornFiles
//	    apply prepareCommit: no SyncAll                                        apply TestPain05_PowerCut
//	 6  apply finish (stage): placed as soon as it is staged                   TestPain06_NothingVisibleBeforeAllIsReady
//	    apply probe; finish (run): Wait continues with the rest                TestPain06_LockedFile, TestPain13_LockedFile
//	    apply tidyStage: nothing is kept                                       TestPain06_LockedFile, TestPain13_FullDisk
//	    apply recover; clearWay ignores journal.moved                          TestPain06_RolledForward
//	    apply clearWay: no undo, or skips the files in use                     apply TestLockedInTheBurst
//	 7  repo open (fetch): chunk ids, of content alone too; + checker, whole   TestPain07_FlippedBits (the last: wrong bytes, verified)
//	    repo open (fetch): chunk ids                                           TestPain07_FlippedForEver
//	    repo block, readGood: not fetched again; openSegment: no digest        TestPain07_FlippedBits
//	    trust Verify: no Ed25519                                               TestPain07_FlippedBits
//	    bucket Put: no checksum + unsigned payload; damageTries 0              TestPain07_FlippedUploads
//	    apply whole + checker: not read back                                   apply TestStageIsReadBack
//	 8  verify read: digests not compared; path: always quick                  TestPain08_LargeImage
//	    apply bring, untouched: Rehash trusts the catalogue                    TestPain08_LargeImage
//	    verify read: an error is ignored                                       TestPain08_UnreadableFile
//	    verify path: kinds; repo Manifests.Load, Entries: a lost page ends it  TestPain08_CheckThatCannotBeMade
//	 9  publish openCache: never based; apply bring: never a no-op             TestPain09_ManyFiles (requests)
//	    apply peek keeps every record                                          TestPain09_ManyFiles (memory)
//	    not visible at 100 000 files: scan aheadDirs, aheadItems; publish's unbounded queue
//	10  repo spans: a request a block, no gaps read; pack TargetSize 4 MiB     TestPain10_RequestBill
//	    repo segment kept, trust kept, pages kept; no seeds; no stat cache     TestPain10_RequestBill
//	    apply bring: never a no-op; a LIST before a pull                       TestPain10_RequestBill
//	11  agent nightfall: no run is stopped                                     agent TestPain11_ImageOverTwoNights, TestPain12
//	    apply tidyStage: nothing is kept                                       agent TestPain11_ImageOverTwoNights (45 MB twice)
//	    apply stopped: any end of the context ends the burst                   agent TestPain11_BurstAtTheEndOfTheNight
//	    agent mend: a commit waits for the next window                         agent TestCommitIsFinishedOutsideTheWindow
//	    agent KeepLent: nothing; knownAbsent: never; hold: not the packs       core TestWindowOpensWithTheCoreGone
//	    core lendLife: a day                                                   core TestLentToTheEndOfTheNextWindow
//	12  agent open: windows ignored; readNight: UTC                            agent TestPain12
//	    agent nightfall: the hourly rate is not set                            agent TestPain12
//	    bucket Receive: buffers left to the system                             bucket TestReceiveBoundsWhatIsTakenAhead
//	13  manifest MaxPath 260                                                   TestPain13_LongPaths
//	    durable isLockedErrno: no sharing violation (wine)                     TestPain13_FileHeldByAProgram
//	    apply outcomeOf, free: a lock is a failure; commit: always verified;   TestPain13_LockedFile
//	    bring: a no-op though not Complete                                     TestPain13_LockedFile
//	    apply burst: a step in use ends it                                     apply TestLockedInTheBurst
//	    durable IsDiskFull; apply full: files not named                        TestPain13_FullDisk
//	    apply space: off, asked after staging, staged bytes counted again      TestPain13_SpaceIsCheckedBefore
//	14  agent halting: no run is stopped + Gate: not asked                     core TestPain14Stop
//	    agent halting: no run is stopped on a slow line                       agent TestPain14_BlockIsCutShort
//	    agent startDue + launch: not asked; rememberHalts: forgotten           agent TestPain14_KilledAgentStaysHalted
//	    agent takeHalts: confirmed, and not kept                               agent TestPain14_KilledAgentStaysHalted
//	    agent takeHalts: an older epoch wins; any key may sign                 agent TestHaltStopsARun…, TestUnkeptHalt…
//	    agent obeyed: what is not durable is confirmed                         agent TestUnkeptHaltIsObeyedNotConfirmed
//	    agent readStoreHalts: an older object counts; no fail-safe             agent TestPain14_OldOrdersAreNoAnswer
//	    agent readStoreHalts: never read; watchLocal: off                      core TestPain14SecondPath
//	    agent spread: no wait; startDue: does not wait                         agent TestMissedRunsAreSpread, TestSpreadOutlivesNews
//	    apply stopped: a burst continues                                       apply TestPain14_StopInMidCommit
//	    apply stopped: Gate is not asked; agent bury: not for a halt, ends     agent TestPain14_HaltStopsEveryCommit
//	    apply connect, publish Run: the store's halt orders are not read       cmd/nightferry TestScripts/halt
//	    apply gate, publish gate: not checked again                            apply TestPain14_PullStopsMidway, publish …PushStops…
//	    collect GC: not asked                                                  cmd/nightferry TestHaltCommands
//	    halting change: record after nothing; record: no object                cmd/nightferry TestPain14_CoreKilledBefore…
//	    halting change: ends with the caller; Look: not stored again           core TestHaltWithoutTheStore
//	    halting Merge: theirs are dropped; lifted orders come back            halting TestMerge, core TestTwoOrdersAtOnce
//	    halting store: one epoch for two sets                                  core TestSeveralOrdersAtOnce
//	    halting storeAgain, repo Halts.Merge: an old object stays              core TestOldHaltPutBack
//	    core catchUp: not called;    halting Adopt: nothing                    core TestRestoredCoreAndHalts, …Resumes
//	    core beat: a lost state is not sent again                              core TestHaltIsToldUntilItIsSeen
//	    core lend: content without the halt object                             core TestHaltCanBeReadAsLongAsContent
//	    agent usable: the last URL to expire; takeHalt: only the newest        agent TestHaltOfTheNewestAnswer
//	    core siteNight: always the region of the enrolment                     core TestHaltOfTheRegionASiteHasNow
//	    core publishDue: not asked; underHalt: any name                        core TestPublishesMissedInAHalt, TestHaltsOfOthers
//	15  repo acceptHead, Head: older, or missing after one; apply remember    TestPain15_ReplayedRelease
//	    repo acceptRelease: digest + trust Verify: subject                     TestPain15_ReplayedRelease, ForeignHead
//	    trust Verify: repository; scope + acceptRelease: digest                TestPain15_ForeignHead
//	    collect checkPacks: a missing pack                                     TestPain15_LostContent, MissingObject
//	    collect run: halt; readChain: release, head; repo Halts: gone is none  TestPain15_MissingObject
//	    collect readIndex: CheckSegment + Known                                TestPain15_MissingObject
//	    collect forget: Lost does not grow                                     TestPain15_LostPackIsHealed
//	    repo PushHead: not Behind; collect retain: beheaded ignored            TestPain15_LostHead
//	    repo PushHead: not Behind; Publish: numbers reused                     TestPain15_RestoredBucket
//	    agent startScrub: none; mode: repair false repairs; inspect: a quick   core TestPain15_OneFileChangedAtASite
//	    check forgets suspects; core discrepancy: none, none of a folder that  core TestPain15_OneFileChangedAtASite
//	    is gone, not over when verified                                        core TestPain15_OneFileChangedAtASite
//	    agent scrub: no cursor, delays a run                                   core TestScrubGoesOn
//	    agent launchScrub: halts; core noteStale: none                         core TestScrubObeysHalts, TestStale
//	    apply doubted: stat is trusted; readChecks: damage is reported as good apply TestSuspectIsReadAgain
//	    verify After, Limit: ignored; a stopped run has findings               verify TestResume, TestRate, TestStoppedFindsNothing
//	    repo acceptHead: older, a head put back under a whole fleet            core TestPain15_ReplayInTheFleet
//	    core checkBucket: damage is no incident; checkBucketDue: once, or      core TestPain15_LostObjectIsNoticed
//	    not again after a publish                                              core TestPain15_LostObjectIsNoticed
//	    measure read: the digest; judge: a folder that cannot be listed, what  measure TestOutcomes, TestReleaseThatLies,
//	    cannot be looked at; count: moved files; sum: not checked again        TestUnreadable, TestChangedWhileRead
//	    measure judge + looks: times are ignored                               measure TestOutcomes
//	    core measureDue: ignores ledger, halts; damage not again               core TestSourceIsMeasured, TestMeasuringObeys,
//	    core judgeSource: no incident                                          core TestDamagedSource
//	    core compareAll; attestation: not compared, counts not; Sites          core TestContradicted, TestCountsAreTheReleases
//	    core trouble, expire, ledgerFailed: no incident                        core TestTroubleInside, TestLedgerFails
//
// Two edits of 15 failed no test, because another protection acts first: the kind in trust's Subject (frame.Decode and
// the signature check it too), and fsck's check of the trust documents (repo.Open follows them first).
package pains
