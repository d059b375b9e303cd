package main

import (
	"context"
	"log/slog"
	"slices"

	"nightferry/internal/logfile"
)

// thinned is a log handler that limits equal messages. The attribute "suppressed" of the next message that passes is
// the number of suppressed ones.
type thinned struct {
	slog.Handler
	thinner *logfile.Thinner
}

// apart are the attributes by which messages with equal texts differ.
var apart = []string{"channel"}

// Handle implements slog.Handler.
func (h thinned) Handle(ctx context.Context, r slog.Record) error {
	parts := []string{r.Level.String(), r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if slices.Contains(apart, a.Key) {
			parts = append(parts, a.Value.String())
		}
		return true
	})
	pass, suppressed := h.thinner.Pass(parts...)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("suppressed", suppressed))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h thinned) WithAttrs(attrs []slog.Attr) slog.Handler {
	return thinned{h.Handler.WithAttrs(attrs), h.thinner}
}

// WithGroup implements slog.Handler.
func (h thinned) WithGroup(name string) slog.Handler {
	return thinned{h.Handler.WithGroup(name), h.thinner}
}
