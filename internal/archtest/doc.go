// Package archtest enforces the architecture: the list of rooms (packages), the floor of each room, and the rooms that
// may import certain packages. It holds only tests. Rules that exist only in a document are soon broken. Here each rule
// includes its reason, and the test prints it when the rule is broken.
package archtest
