package core

import "testing"

// One site fills neither the queue that it shares with others nor the Core's
// time, and what it invents becomes no label of a metric.
func TestInboxIsBounded(t *testing.T) {
	i := newInbox()
	for n := range siteWaiting {
		if !i.admitMessage() {
			t.Fatalf("message %d is refused", n+1)
		}
	}
	if i.admitMessage() {
		t.Errorf("more than %d messages of one site wait", siteWaiting)
	}
	i.messageDone()
	if !i.admitMessage() {
		t.Error("a place that is free again is not given")
	}
	i = newInbox()
	accepted := 0
	for range 10 * siteBurst {
		if i.admitMessage() {
			accepted++
			i.messageDone()
		}
	}
	if accepted < siteBurst || accepted > 2*siteBurst {
		t.Errorf("%d of %d messages at once are accepted, want about %d", accepted, 10*siteBurst, siteBurst)
	}
	var n counters
	for _, verb := range []string{"hello", "v1", "v2", "v3"} {
		n.countMessage(verb)
	}
	if len(n.messages) != 2 || n.messages["other"] != 3 {
		t.Errorf("labels %v", n.messages)
	}
}
