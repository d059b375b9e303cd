package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/text"
)

// coreFile holds a CoreLink, for operators on the site.
const coreFile = "core.json"

// CoreLink is the state of the connection to the Core.
type CoreLink struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`             // of the connection, of its loss or of the refusal; zero: there was none yet
	URL       string    `json:"url,omitempty"`     // of the Core
	Heard     time.Time `json:"heard"`             // when the newest message of the Core arrived; zero: none
	Refused   bool      `json:"refused,omitempty"` // the Core does not accept the site's identity
	Cause     string    `json:"cause,omitempty"`   // error of the last attempt to connect
}

// coreLink keeps a CoreLink up to date. Messages of the Core only change it in memory: a halt order behind them must not
// wait for a slow or full disk.
type coreLink struct {
	news signal // the file is out of date

	mu   sync.Mutex
	now  CoreLink
	kept CoreLink // in the file
}

// heardEvery is how often the time of the newest message is written.
const heardEvery = time.Minute

// noteCore changes the link, and has the file written if that is news.
func (c *session) noteCore(change func(*CoreLink)) {
	l := &c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
	news := l.now
	news.Heard = l.kept.Heard
	if news != l.kept || l.now.Heard.Sub(l.kept.Heard) >= heardEvery {
		l.news.wake()
	}
}

// writeLinks writes the file when it is out of date, after a failure no sooner than heardEvery later.
func (c *session) writeLinks(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.link.news:
		}
		if err := c.writeLink(); err != nil {
			c.logNote(Warning, "", "the state of the connection cannot be shown on this site", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(heardEvery):
				c.link.news.wake()
			}
		}
	}
}

func (c *session) writeLink() error {
	l := &c.link
	l.mu.Lock()
	now := l.now
	l.mu.Unlock()
	b, err := json.Marshal(&now)
	if err == nil {
		err = durable.Patiently(func() error { return writeOwn(c.root, coreFile, append(b, '\n')) }) // ReadStatus reads it
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = now
	return nil
}

// noteConnection records an event of the connection.
func (c *session) noteConnection(e bus.Event) {
	now := c.o.Now().UTC().Truncate(time.Second)
	c.noteCore(func(l *CoreLink) {
		if e.Kind == bus.Connected {
			*l = CoreLink{Connected: true, Since: now, URL: e.URL, Heard: l.Heard}
			return
		}
		refused := l.Refused || e.Kind == bus.Unwelcome // a later attempt may not reach the Core at all
		if l.Connected || l.Since.IsZero() || refused != l.Refused {
			l.Since = now
		}
		l.Connected, l.Refused, l.Cause = false, refused, ""
		if e.Err != nil {
			l.Cause = text.Clean(e.Err.Error(), maxCause)
		}
	})
}

// maxCause bounds the error of an attempt to connect in coreFile, in bytes.
const maxCause = 512

func (c *session) noteHeard() {
	c.noteCore(func(l *CoreLink) { l.Heard = c.o.Now().UTC().Truncate(time.Second) })
}

// restoreLink restores the record of an earlier process.
func (c *session) restoreLink() {
	l, err := readLink(c.root)
	if err != nil {
		c.logNote(Warning, "", "the recorded state of the connection is not used", err)
	}
	if l.Connected {
		l.Connected, l.Cause = false, ""
	}
	c.link.now, c.link.kept = l, l
}

func readLink(root *durable.Root) (l CoreLink, err error) {
	b, err := readSmall(root, coreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return CoreLink{}, fmt.Errorf("read %s: %w", coreFile, err)
	}
	l.URL, l.Cause = text.Clean(l.URL, maxCause), text.Clean(l.Cause, maxCause)
	return l, nil
}

// UnwelcomeError reports that the Core does not accept the site's identity.
type UnwelcomeError struct {
	Site    string
	Expired time.Time // when the site's credential ended; zero: it has not
	Err     error     // nil: found in the agent's records
}

func (e *UnwelcomeError) Error() string {
	if !e.Expired.IsZero() {
		return fmt.Sprintf("the Core refuses site %s: its credential ended on %s, since no agent ran here to renew it", e.Site, e.Expired.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("the Core refuses site %s: it was revoked there, is no longer in the configuration, or another server has enrolled as this site", e.Site)
}

func (e *UnwelcomeError) Unwrap() error { return e.Err }

// Remedy names the ways back.
func (e *UnwelcomeError) Remedy() string {
	return fmt.Sprintf("if the Core's configuration lacks site %[1]s, add it there and reload: the site then connects by itself. Otherwise, if this server is to be site %[1]s, make a token at the Core (nightferry site token %[1]s) stop the agent, and run here, with the agent's --state if it has one: nightferry-agent enroll --replace --token-file FILE --allow DIR. If not: nightferry-agent uninstall", e.Site)
}

// unwelcome returns the error of an identity that the Core refuses. root is the state directory.
func unwelcome(root *durable.Root, site string, now time.Time, err error) *UnwelcomeError {
	out := &UnwelcomeError{Site: site, Err: err}
	token, rerr := readJWT(root)
	if rerr != nil {
		return out
	}
	if g, gerr := bus.ReadGrant(token); gerr == nil && !g.Expires.IsZero() && now.After(g.Expires) {
		out.Expired = g.Expires
	}
	return out
}
