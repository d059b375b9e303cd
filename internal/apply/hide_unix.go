//go:build !windows

package apply

import "nightferry/internal/durable"

// hideFolder does nothing: the name's dot hides it.
func hideFolder(*durable.Root, string) error { return nil }
