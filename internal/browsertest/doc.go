// Package browsertest drives the console in a real browser, Debian's chromium. It is a module of its own, so that the
// product's module does not need the browser's protocol. testdata/axe.min.js is axe-core 4.14.1 (MPL-2.0).
package browsertest
