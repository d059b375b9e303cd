// Package pains holds no code, only tests: what users of today's tools in this field suffer from, one file for each
// complaint, from a folder through a real store to another folder. A test is named after the complaint's number in
// the list below, and each fails when the protection that it is about is switched off.
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
//	13  Windows realities                           pain13_test.go, pain13_linux_test.go
//	15  replayed releases, missing objects          pain15_test.go
//
// What bad input gets, and where that is tested: here from end to end (damage_test.go, badinput_test.go,
// unreadable_linux_test.go), and where it says so in the room that meets it first.
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
package pains
