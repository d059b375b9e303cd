package agent

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestClockWithoutAWitness: a store that answers without its time proves nothing about this machine's clock.
func TestClockWithoutAWitness(t *testing.T) {
	for _, date := range [][]string{nil, {time.Now().UTC().Format(http.TimeFormat)}} {
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = date }))
		id := &Identity{}
		id.Store = store.URL
		if err := checkClock(t.Context(), id, CheckOptions{Now: time.Now}); errors.Is(err, ErrUnproven) != (date == nil) || date != nil && err != nil {
			t.Errorf("date %q: %v", date, err)
		}
		store.Close()
	}
}
