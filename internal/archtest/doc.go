// Package archtest enforces the house's plan: which rooms (packages) there are, on which floor each one stands, and
// who alone may import what. It holds tests only. A rule that exists only in a document is broken within a month by
// somebody in a hurry; here each rule carries its reason, and breaking it prints that reason.
package archtest
