//go:build !windows

package apply

import "nightferry/internal/durable"

// hide does nothing: the name's dot hides it.
func hide(*durable.Root, string) error { return nil }
