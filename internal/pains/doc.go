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
// Bad input has tests of its own, most of them in the room that meets it first:
package pains
