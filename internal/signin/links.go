package signin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"time"

	"nightferry/internal/ledger"
)

const (
	linkLife = 5 * time.Minute
	maxLinks = 100 // that are good
)

// links are the console links that are good. They are in memory only, by the hash of their text: a restart ends them.
type links struct {
	mu     sync.Mutex
	byHash map[[32]byte]link
}

type link struct {
	who   string
	until time.Time
}

// LinkError means that a console link cannot be made, or is not good.
type LinkError struct{ Text, Fix string }

func (e *LinkError) Error() string { return e.Text }

// Remedy returns the next step.
func (e *LinkError) Remedy() string { return e.Fix }

// Link makes a link that signs an account of the Core's machine in, once and within five minutes. The caller has made sure
// that it asks over the local socket.
func (s *Service) Link(ctx context.Context, who string) (url string, until time.Time, err error) {
	if s.o.URL == "" {
		return "", until, &LinkError{"the console is off", "set listen.console in the configuration, and restart the Core"}
	}
	text := newSecret()
	until = s.o.Now().Add(linkLife)
	if err := s.links.add(sha256.Sum256([]byte(text)), link{who, until}, s.o.Now()); err != nil {
		return "", until, err
	}
	if err := s.o.Audit(ctx, who, "console link", "console", "good once until "+until.UTC().Format(time.RFC3339)); err != nil {
		return "", until, err
	}
	return s.o.URL + linkPath + text, until, nil
}

func (l *links) add(hash [32]byte, x link, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h, old := range l.byHash {
		if !now.Before(old.until) {
			delete(l.byHash, h)
		}
	}
	if len(l.byHash) >= maxLinks {
		return &LinkError{fmt.Sprintf("%d console links are good already", maxLinks), "use one of them, or wait five minutes"}
	}
	l.byHash[hash] = x
	return nil
}

// take returns the account of a link, which is good no more.
func (l *links) take(text string, now time.Time) (who string, ok bool) {
	hash := sha256.Sum256([]byte(text))
	l.mu.Lock()
	defer l.mu.Unlock()
	x, found := l.byHash[hash]
	delete(l.byHash, hash)
	return x.who, found && now.Before(x.until) && !now.Before(x.until.Add(-linkLife))
}

// useLink signs in by a link. Only a form of the Core's own page does that: a preview that fetches the link uses nothing.
func (s *Service) useLink(w http.ResponseWriter, req *http.Request) {
	who, ok := s.links.take(req.PostFormValue("link"), s.o.Now())
	if !ok {
		s.showError(w, http.StatusForbidden, &LinkError{"This link is not good: it was used, or is older than five minutes.", "Make a new one on the Core's machine: nightferry console link"})
		return
	}
	text := fmt.Sprintf("%s signed in to the console by a link, from %s", who, req.RemoteAddr)
	if err := s.o.Audit(req.Context(), who, "sign in", "console", "by a console link, from "+req.RemoteAddr); err != nil {
		s.showError(w, http.StatusInternalServerError, fmt.Errorf("the Core cannot record this: %w", err))
		return
	}
	s.o.Linked(newID(), text)
	if err := s.start(req.Context(), w, req, ledger.Session{Person: who + " (console link)"}, claims{Link: true}); err != nil {
		s.showError(w, http.StatusServiceUnavailable, err)
		return
	}
	http.Redirect(w, req, "/", http.StatusSeeOther)
}
