package publishing

import (
	"context"
	"errors"
	"testing"
)

// TestOneActAtATime: a channel has one publish at a time, and a measurement
// beside it. Another channel waits for neither. A stop with a cause ends both.
func TestOneActAtATime(t *testing.T) {
	var s Service
	ctx, end, ok := s.Begin(t.Context(), Publish, "image")
	if !ok {
		t.Fatal("it could not begin")
	}
	if _, _, ok := s.Begin(t.Context(), Publish, "image"); ok {
		t.Error("two at once")
	}
	beside, endBeside, ok := s.Begin(t.Context(), Measure, "image")
	if !ok {
		t.Fatal("no measurement beside it")
	}
	other, endOther, ok := s.Begin(t.Context(), Publish, "patch")
	if !ok {
		t.Fatal("another channel's publish waits")
	}
	cause := errors.New("halted")
	s.Stop(func(channel string) error {
		if channel == "image" {
			return cause
		}
		return nil
	})
	if context.Cause(ctx) != cause || context.Cause(beside) != cause || other.Err() != nil {
		t.Error(context.Cause(ctx), context.Cause(beside), other.Err())
	}
	end()
	endBeside()
	if s.Running(Publish, "image") || s.Running(Measure, "image") || !s.Running(Publish, "patch") {
		t.Error("what ended runs, or what runs ended")
	}
	endOther()
	if _, end, ok := s.Begin(t.Context(), Publish, "image"); !ok {
		t.Error("it cannot begin again")
	} else {
		end()
	}
}
